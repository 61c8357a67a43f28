//! How is a folder of safetensors files read?

/// Why a folder of safetensors files cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {}
