//! Pages: new keys and values written, full pages packed.

use kernels::naive::{HeadShape, PageFormat, PageType, PairLayout, Rotary};
use kernels::{Array, AttentionSizes, Device, PageKernels, PageSlot};

use crate::devices::{assert_close, numbers, on_devices};

fn sizes(head_dim: usize, n_kv_heads: usize) -> AttentionSizes {
    AttentionSizes {
        heads: HeadShape { n_heads: n_kv_heads, n_kv_heads, head_dim },
        n_pairs: head_dim / 4, // rotated in part
        page_len: 64,
        kv_types: Vec::new(),
    }
}

fn frequencies(n_pairs: usize) -> Vec<f64> {
    (0..n_pairs).map(|i| 10f64.powf(-(i as f64) / n_pairs as f64)).collect()
}

#[test]
fn keys_and_values_are_rotated_and_rounded_as_they_are_written_and_other_slots_stay() {
    let slots = [3, 63, 0, 17, 62];
    for (head_dim, n_kv_heads) in [(64, 3), (80, 1), (96, 2), (256, 1)] {
        for (kv_type, tolerance) in [(PageType::F16, 1e-3), (PageType::Int8, 8e-3)] {
            let sizes = sizes(head_dim, n_kv_heads);
            let format = PageFormat { kv_type, head_dim, page_len: 64 };
            // Of rows that others share, these begin with the third.
            let skipped = 2;
            let len = (skipped + slots.len()) * n_kv_heads * head_dim;
            let (keys, values) = (numbers(1, len), numbers(2, len));
            let frequencies = frequencies(sizes.n_pairs);
            let angles: Vec<f32> = (0..64)
                .flat_map(|slot| {
                    let angle = move |f: &f64| slot as f64 * f;
                    let cosines = frequencies.iter().map(move |f| angle(f).cos() as f32);
                    cosines.chain(frequencies.iter().map(move |f| angle(f).sin() as f32))
                })
                .collect();
            let n_bytes = 32 + n_kv_heads * format.head_bytes();
            let page = on_devices(|device| {
                let mut kernels = PageKernels::new(device, sizes.clone()).unwrap();
                let mut buffer = device.allocate(n_bytes).unwrap();
                device.write(&mut buffer, 0, &vec![0x3c; n_bytes]).unwrap();
                let to = |slot| PageSlot { buffer: &buffer, offset: 32, slot, kv_type };
                let rows = slots.map(to);
                let keys = Array::of(device, &keys).unwrap();
                let values = Array::of(device, &values).unwrap();
                let angles = Array::of(device, &angles).unwrap();
                kernels.write(device, &rows, (&keys, &values, skipped), &angles).unwrap();
                let mut page = vec![0; n_bytes];
                device.read(&buffer, 0, &mut page).unwrap();
                page
            });
            assert_eq!(page[..32], [0x3c; 32]);
            let untouched = vec![0x3c; format.head_bytes()];
            let rotary = Rotary {
                inverse_frequencies: &frequencies,
                magnitude: 1.0,
                layout: PairLayout::Half,
            };
            for (kv_head, head) in page[32..].chunks(format.head_bytes()).enumerate() {
                let (k, v) = format.unpack(head, 64);
                let (other_k, other_v) = format.unpack(&untouched, 64);
                for slot in 0..64 {
                    let here = slot * head_dim..(slot + 1) * head_dim;
                    let Some(row) = slots.iter().position(|s| *s == slot) else {
                        assert_eq!(k[here.clone()], other_k[here.clone()], "slot {slot} stays");
                        assert_eq!(v[here.clone()], other_v[here], "slot {slot} stays");
                        continue;
                    };
                    let at = ((skipped + row) * n_kv_heads + kv_head) * head_dim;
                    let key = rotary.rotate(&keys[at..at + head_dim], slot);
                    assert_close(&k[here.clone()], &key, tolerance);
                    assert_close(&v[here], &values[at..at + head_dim], tolerance);
                }
            }
        }
    }
}

#[test]
fn a_full_page_is_packed_as_its_twin_packs_it() {
    for (head_dim, n_kv_heads) in [(64, 2), (80, 1), (128, 3)] {
        let sizes = sizes(head_dim, n_kv_heads);
        let bytes = PageFormat { kv_type: PageType::Int8, head_dim, page_len: 64 };
        let nibbles = PageFormat { kv_type: PageType::Int4, ..bytes };
        let heads: Vec<Vec<u8>> = (0..n_kv_heads as u64)
            .map(|head| {
                bytes.pack(&numbers(head, 64 * head_dim), &numbers(50 + head, 64 * head_dim), 0)
            })
            .collect();
        let packed = on_devices(|device| {
            let kernels = PageKernels::new(device, sizes.clone()).unwrap();
            let page = heads.concat();
            let mut from = device.allocate(page.len()).unwrap();
            device.write(&mut from, 0, &page).unwrap();
            let mut out = vec![0; n_kv_heads * nibbles.head_bytes()];
            let mut to = device.allocate(out.len()).unwrap();
            kernels.pack(device, (&from, 0), (&mut to, 0)).unwrap();
            device.read(&to, 0, &mut out).unwrap();
            out
        });
        for (head, packed) in heads.iter().zip(packed.chunks(nibbles.head_bytes())) {
            let (keys, values) = bytes.unpack(head, 64);
            let (expected_keys, expected_values) =
                nibbles.unpack(&nibbles.pack(&keys, &values, 0), 64);
            let (k, v) = nibbles.unpack(packed, 64);
            // Where a number lies in the middle between two nibbles either is right.
            let differing = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-5).count()
            };
            assert!(differing(&k, &expected_keys) * 200 < k.len());
            assert!(differing(&v, &expected_values) * 200 < v.len());
            assert_close(&k, &keys, 0.08);
            assert_close(&v, &values, 0.08);
        }
    }
}

#[test]
fn two_rows_to_one_slot_are_refused() {
    on_devices(|device| {
        let mut kernels = PageKernels::new(device, sizes(64, 1)).unwrap();
        let buffer = device.allocate(40_000).unwrap();
        let to = |slot| PageSlot { buffer: &buffer, offset: 0, slot, kv_type: PageType::F16 };
        let floats = Array::of(device, &vec![0.0f32; 64 * 64]).unwrap();
        let refused = kernels.write(device, &[to(5), to(5)], (&floats, &floats, 0), &floats);
        assert!(refused.unwrap_err().to_string().contains("a slot of 5"));
        let refused = kernels.write(device, &[to(64)], (&floats, &floats, 0), &floats);
        assert!(refused.unwrap_err().to_string().contains("a slot of 64"));
        let within = PageSlot { offset: 4096, ..to(7) }; // of the page that begins at 0
        let refused = kernels.write(device, &[to(5), within], (&floats, &floats, 0), &floats);
        assert!(refused.unwrap_err().to_string().contains("pages that lie apart"));
    });
}
