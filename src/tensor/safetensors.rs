//! How is a folder of safetensors files read?
