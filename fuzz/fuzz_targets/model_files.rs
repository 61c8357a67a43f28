//! Does any sequence of bytes make the readers of model files panic? The ordinary tests run the
//! same two functions over thousands of damaged files (tests/it/fuzz_files.rs).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mneme::tensor::gguf::Header::parse(bytes);
    let _ = mneme::tensor::safetensors::check(bytes);
});
