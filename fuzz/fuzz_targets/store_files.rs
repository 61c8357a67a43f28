//! Does any sequence of bytes make the readers of the store's files panic? The ordinary tests run
//! the same functions over thousands of damaged files (memory_store/tests/it/formats.rs).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = memory_store::fuzz::segment(bytes);
    let _ = memory_store::fuzz::row(bytes);
    let _ = memory_store::fuzz::export(bytes);
});
