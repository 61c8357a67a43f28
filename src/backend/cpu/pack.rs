//! How does a page that has left the window become nibbles? See [`KvType::Int4`].

use half::f16;

use crate::backend::{HeadPageMut, KvType, PageLayout};

/// Nibbles reach from -15 to 15 steps.
const REACH: f32 = 15.0;

/// See [`crate::backend::Backend::pack_page`].
pub fn pack_page(layout: PageLayout, page: &[u8], kv_type: KvType, out: &mut [u8]) {
    if kv_type == layout.kv_type {
        out.copy_from_slice(page);
        return;
    }
    assert_eq!(kv_type, KvType::Int4, "the one type that pages are packed to");
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    let packed = layout.of_type(kv_type);
    let mut floats = vec![0.0; head_dim * page_len];
    for layer in 0..layout.n_layers {
        for kv_head in 0..layout.heads.n_kv_heads {
            let view = layout.view(page, layer, kv_head);
            let target = packed.view_mut(out, layer, kv_head);
            let HeadPageMut::Int4 { keys, key_steps, key_middles, values, value_steps } = target
            else {
                unreachable!("a packed layout has packed views");
            };
            view.read_keys(page_len, &mut floats);
            for (pair, rows) in floats.chunks_exact(2 * page_len).enumerate() {
                let (even, odd) = rows.split_at(page_len);
                let scales = [even, odd].map(channel_of);
                for (dim, (step, middle)) in (2 * pair..).zip(scales) {
                    (key_steps[dim], key_middles[dim]) = (step.to_bits(), middle.to_bits());
                }
                let [even_scale, odd_scale] =
                    scales.map(|(step, mid)| (step.to_f32(), mid.to_f32()));
                let bytes = keys[pair * page_len..][..page_len].iter_mut();
                for ((byte, even), odd) in bytes.zip(even).zip(odd) {
                    *byte = nibble(*even, even_scale) | nibble(*odd, odd_scale) << 4;
                }
            }
            view.read_values(head_dim, &mut floats);
            for (pair, rows) in floats.chunks_exact(2 * head_dim).enumerate() {
                let (even, odd) = rows.split_at(head_dim);
                let largest = |x: &[f32]| x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                let steps = [even, odd].map(|x| largest(x) / REACH);
                value_steps[2 * pair..][..2].copy_from_slice(&steps);
                let bytes = values[pair * head_dim..][..head_dim].iter_mut();
                for ((byte, even), odd) in bytes.zip(even).zip(odd) {
                    *byte = nibble(*even, (steps[0], 0.0)) | nibble(*odd, (steps[1], 0.0)) << 4;
                }
            }
        }
    }
}

/// Step and middle of a channel.
fn channel_of(x: &[f32]) -> (f16, f16) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let least = x.iter().copied().fold(f32::INFINITY, f32::min);
    let middle = f16::from_f32((most + least) / 2.0);
    // Up to the next f16, so that both ends are within reach.
    let reach = (most - middle.to_f32()).max(middle.to_f32() - least);
    let step = f16::from_f32(reach / REACH);
    let is_short = step.to_f32() * REACH < reach && step < f16::MAX;
    (if is_short { f16::from_bits(step.to_bits() + 1) } else { step }, middle)
}

/// The nibble nearest to `x`.
fn nibble(x: f32, (step, middle): (f32, f32)) -> u8 {
    if step == 0.0 {
        return 8; // all of the channel are its middle
    }
    ((x - middle) / (2.0 * step) + REACH / 2.0).round_ties_even().clamp(0.0, 15.0) as u8
}
