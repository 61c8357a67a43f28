//! Does anything at all that lies in a model file make us panic, or allocate more than the file
//! is long? Cuts, flipped bits and overwritten fields of good files, by the thousand.

use mneme::model::Model;
use mneme::tensor::gguf::Header;
use mneme::tensor::safetensors;

use crate::allocation::peak_bytes;
use crate::fixtures::{Random, ScratchFolder, TinyModel};

/// Values that make arithmetic overflow.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    (1 << 62) - 1,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// Reads a header and says nothing; returns whether it was believed.
fn gguf(bytes: &[u8]) -> bool {
    let (result, peak) = peak_bytes(|| Header::parse(bytes).map(|header| header.n_tensors()));
    assert!(peak <= bytes.len() + 16 * 1024, "{peak} bytes allocated for {}", bytes.len());
    if let Err(fault) = &result {
        assert!(!fault.to_string().is_empty());
    }
    result.is_ok()
}

/// JSON costs its parser several times its length, so the bound is looser.
fn safetensors_file(bytes: &[u8]) -> bool {
    let (result, peak) = peak_bytes(|| safetensors::check(bytes));
    assert!(peak <= 16 * bytes.len() + 16 * 1024, "{peak} bytes allocated for {}", bytes.len());
    result.is_ok()
}

/// Applies every kind of damage to the first `header_len` bytes of `good`.
fn damage(good: &[u8], header_len: usize, mut read: impl FnMut(&[u8]) -> bool) {
    assert!(read(good));
    for length in (0..good.len()).filter(|&at| at < 4096 || at % 61 == 0) {
        assert!(!read(&good[..length]), "cut at {length}");
    }
    let mut random = Random(11);
    let mut bytes = good.to_vec();
    for _ in 0..6000 {
        let at = random.below(header_len);
        let n_bits = 1 + random.below(3);
        for bit in 0..n_bits {
            let at = (at + bit * 7).min(good.len() - 1);
            bytes[at] ^= 1 << random.below(8);
        }
        read(&bytes);
        bytes.copy_from_slice(good);
    }
    for _ in 0..6000 {
        let width = [1, 2, 4, 8][random.below(4)];
        let at = random.below(header_len - width);
        let extreme = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
        bytes[at..at + width].copy_from_slice(&extreme[..width]);
        read(&bytes);
        bytes[at..at + width].copy_from_slice(&good[at..at + width]);
    }
}

#[test]
fn damaged_gguf_headers_neither_panic_nor_allocate() {
    let writer = TinyModel { n_layers: 1, ..TinyModel::default() }.gguf();
    damage(&writer.bytes(), writer.header_bytes().len(), gguf);
}

#[test]
fn every_length_field_of_a_gguf_header_may_lie() {
    let writer = TinyModel { n_layers: 1, ..TinyModel::default() }.gguf();
    let good = writer.bytes();
    let mut bytes = good.clone();
    // Most of the header is the vocabulary, which is more of the same.
    let end = writer.header_bytes().len();
    for at in (8..end - 8).filter(|at| at % 3 == 0) {
        for extreme in [0, 1 << 32, 1 << 63, u64::MAX] {
            bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(extreme));
            gguf(&bytes);
        }
        bytes[at..at + 8].copy_from_slice(&good[at..at + 8]);
    }
}

#[test]
fn damaged_safetensors_headers_neither_panic_nor_allocate() {
    let scratch = ScratchFolder::new();
    TinyModel { n_layers: 1, ..TinyModel::default() }.write_folder(scratch.path(), 1);
    let good = std::fs::read(scratch.path().join("model.safetensors")).unwrap();
    let header_len = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    damage(&good, header_len, safetensors_file);
}

#[test]
fn damaged_models_open_or_say_why_not() {
    let scratch = ScratchFolder::new();
    let writer = TinyModel { n_layers: 1, ..TinyModel::default() }.gguf();
    let (good, header_len) = (writer.bytes(), writer.header_bytes().len());
    let mut random = Random(12);
    for round in 0..1500 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(2) {
            let at = random.below(header_len - 8);
            match round % 2 {
                0 => bytes[at] ^= 1 << random.below(8),
                _ => {
                    let extreme = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                    let width = [1, 4, 8][random.below(3)];
                    bytes[at..at + width].copy_from_slice(&extreme[..width]);
                }
            }
        }
        let path = scratch.file("damaged.gguf", &bytes);
        let (result, peak) = peak_bytes(|| Model::open(&path));
        assert!(peak <= bytes.len() + 64 * 1024, "{peak} bytes allocated for {}", bytes.len());
        if let Err(error) = result {
            assert!(error.to_string().contains("damaged.gguf"), "{error}");
        }
    }
}

#[test]
fn random_bytes_are_no_model() {
    let mut random = Random(13);
    for length in 0..2000 {
        let mut bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
        assert!(!gguf(&bytes) && !safetensors_file(&bytes));
        let head = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
        let shared = length.min(head.len());
        bytes[..shared].copy_from_slice(&head[..shared]);
        gguf(&bytes);
    }
}
