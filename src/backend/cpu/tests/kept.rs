//! What pages keep of keys and values, element by element.

use fastrand::Rng;
use kernels::naive;

use super::attention::{Case, heads};
use super::{backends, halved};
use crate::backend::{KvType, PageLayout, Precision};

#[test]
fn a_page_keeps_keys_and_values_within_half_a_step() {
    for kv_type in KvType::ALL {
        let layout = PageLayout { heads: heads(4, 2, 64), n_layers: 3, page_len: 32, kv_type };
        let mut case = Case::random(layout, 40, &mut Rng::with_seed(12));
        // Some of a key's dimensions are much larger than the others.
        let large = case.keys.chunks_exact_mut(16).step_by(4).flatten();
        large.for_each(|x| *x *= 30.0);
        let frequencies = case.frequencies();
        let rotary = naive::Rotary {
            inverse_frequencies: &frequencies,
            magnitude: 1.0,
            layout: naive::PairLayout::Half,
        };
        for backend in backends(Precision::F32) {
            let pages = case.write_pages(&backend, &mut Rng::with_seed(5));
            let kept = case.kept(&pages);
            for (spec, kept) in case.pages.iter().zip(kept) {
                if case.type_of(spec) == KvType::Int4 {
                    continue; // see the test of packed pages
                }
                for (kv_head, [keys, values]) in kept.iter().enumerate() {
                    for slot in 0..spec.n_keys {
                        let at = ((spec.first_index + slot) * 2 + kv_head) * 64;
                        let key = rotary.rotate(&case.keys[at..][..64], slot);
                        let found = &keys[slot * 64..][..64];
                        assert_kept(kv_type, &key, found, 16);
                        let value = &case.values[at..][..64];
                        assert_kept(kv_type, value, &values[slot * 64..][..64], 64);
                    }
                }
            }
        }
    }
}

/// Each element of a packed page is within half a step: of its channel for a key, of its largest
/// element for a value.
#[test]
fn a_packed_page_keeps_keys_and_values_within_half_a_step() {
    let layout =
        PageLayout { heads: heads(4, 2, 64), n_layers: 3, page_len: 32, kv_type: KvType::Int4 };
    let mut case = Case::random(layout, 40, &mut Rng::with_seed(13));
    // Channels of other sizes, with a middle far from zero, all alike, and one without any numbers.
    for key in case.keys.chunks_exact_mut(64) {
        (key[3], key[40], key[7], key[50]) = (50.0 * key[3], key[40] + 20.0, 1.5, 0.0);
    }
    for backend in backends(Precision::F32) {
        let packed = case.kept(&case.write_pages(&backend, &mut Rng::with_seed(5)));
        case.layout = layout.of_type(KvType::Int8);
        let bytes = case.kept(&case.write_pages(&backend, &mut Rng::with_seed(5)));
        let mut n_packed = 0;
        for ((spec, packed), bytes) in case.pages.iter().zip(packed).zip(bytes) {
            n_packed += usize::from(spec.n_keys == 32);
            for ([keys, values], [byte_keys, byte_values]) in packed.iter().zip(&bytes) {
                for dim in (0..64).filter(|_| spec.n_keys == 32) {
                    let channel = |x: &[f32]| x.iter().skip(dim).step_by(64).copied().collect();
                    let (found, expected): (Vec<f32>, Vec<f32>) =
                        (channel(keys), channel(byte_keys));
                    let most = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let least = expected.iter().copied().fold(f32::INFINITY, f32::min);
                    // And what f16 rounds step and middle by.
                    let bound = (most - least) / 30.0 * 1.02 + most.abs().max(least.abs()) / 1024.0;
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!((found - expected).abs() <= bound, "{found} {expected} {bound}");
                    }
                }
                let tokens = values.chunks(64).zip(byte_values.chunks(64));
                for (found, expected) in tokens.filter(|_| spec.n_keys == 32) {
                    let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    for (found, expected) in found.iter().zip(expected) {
                        let error = (found - expected).abs();
                        assert!(error <= largest / 15.0 * 1.001, "{found} {expected}");
                    }
                }
            }
        }
        assert!(n_packed > 0);
        case.layout = layout;
    }
}

/// Kernels read the pages that the processor writes: the two crates that know the layout of a page,
/// and share no line of it, mean the same.
#[test]
fn a_page_is_laid_out_as_kernels_read_it() {
    for (kv_type, of_kernels) in [
        (KvType::F16, naive::PageType::F16),
        (KvType::Int8, naive::PageType::Int8),
        (KvType::Int4, naive::PageType::Int4),
    ] {
        let layout = PageLayout { heads: heads(4, 2, 64), n_layers: 3, page_len: 32, kv_type };
        let case = Case::random(layout, 40, &mut Rng::with_seed(14));
        let backend = &backends(Precision::F32)[0];
        let pages = case.write_pages(backend, &mut Rng::with_seed(5));
        let mut n_compared = 0;
        for ((spec, page), kept) in case.pages.iter().zip(&pages).zip(case.kept(&pages)) {
            if case.type_of(spec) != kv_type {
                continue; // a page that is not full has the type of the window
            }
            let format = naive::PageFormat { kv_type: of_kernels, head_dim: 64, page_len: 32 };
            for (kv_head, [keys, values]) in kept.iter().enumerate() {
                let head = &page[layout.head(case.layer, kv_head)];
                assert_eq!(head.len(), format.head_bytes());
                let (k, v) = format.unpack(head, spec.n_keys);
                let n = spec.n_keys * 64;
                assert_eq!((&k[..], &v[..]), (&keys[..n], &values[..n]), "{kv_type:?}");
                n_compared += n;
            }
        }
        assert!(n_compared > 0);
    }
}

/// What is kept of `x` is within half a step, of the f16 or of the group's bytes.
fn assert_kept(kv_type: KvType, x: &[f32], found: &[f32], group: usize) {
    for (x, found) in x.chunks(group).zip(found.chunks(group)) {
        let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (x, found) in x.iter().zip(found) {
            let step = match kv_type {
                KvType::F16 => (x - halved(*x)).abs() + 1e-6,
                // The scale is an f16 itself: 127 steps of it are off by up to 2^-11 of them.
                KvType::Int4 | KvType::Int8 => largest / 127.0 * (0.501 + 127.0 / 2048.0),
            };
            assert!((x - found).abs() <= step, "{x} {found}, {step}");
        }
    }
}
