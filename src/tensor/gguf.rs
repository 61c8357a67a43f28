//! How is a GGUF file read?
