//! How does a page become what the products want? Keys and values of any type are widened to
//! floats; keys are turned to where the page is placed; either may then be rounded to pairs of
//! 16-bit integers for [`super::pairs`].

use super::pairs::{BOTH_LARGEST, step_of};
use super::vector::Simd;
use crate::backend::{HeadPage, KEY_GROUP, PageLayout, Placement};

/// The largest 16-bit number of a value: 64 products with [`WEIGHT_LARGEST`] are within 31 bits.
pub const VALUE_LARGEST: f32 = 4095.0;

/// The largest 16-bit number of an attention weight.
pub const WEIGHT_LARGEST: f32 = 8191.0;

/// Widens keys into `[head_dim][page_len]`, turned to where the page is placed.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn place_keys<S: Simd>(
    layout: PageLayout,
    page: HeadPage<'_>,
    placement: Placement<'_>,
    offset_angles: &[f32],
    out: &mut [f32],
) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        widen_keys::<S>(layout, page, out);
        match placement {
            Placement::At(angles) => turn::<S>(layout, angles, out),
            Placement::Far => turn_back_offsets::<S>(layout, offset_angles, out),
        }
    }
}

/// Widens keys into `[head_dim][page_len]`, rotated by their offsets as they are.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn widen_keys<S: Simd>(layout: PageLayout, page: HeadPage<'_>, out: &mut [f32]) {
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    assert!(out.len() == head_dim * page_len && page_len.is_multiple_of(16), "a page's keys");
    match page {
        // SAFETY: the caller vouches for the instruction set.
        HeadPage::F16 { keys, .. } => unsafe { widen_halves::<S>(keys, out) },
        HeadPage::Int8 { keys, key_scales, .. } => {
            assert!(keys.len() == out.len(), "a page's keys");
            assert!(key_scales.len() == head_dim / KEY_GROUP * page_len, "their scales");
            for pair in 0..head_dim / 2 {
                let scales_at = 2 * pair / KEY_GROUP * page_len;
                for key in (0..page_len).step_by(S::LANES) {
                    // SAFETY: `key + LANES <= page_len`, in each row of the slices.
                    unsafe {
                        let bytes = S::load_pairs(keys.as_ptr().add(2 * (pair * page_len + key)));
                        let scale = S::load_f16(key_scales.as_ptr().add(scales_at + key));
                        let even = out.as_mut_ptr().add(2 * pair * page_len + key);
                        S::store(even, S::mul(S::low_shorts(bytes), scale));
                        S::store(even.add(page_len), S::mul(S::high_shorts(bytes), scale));
                    }
                }
            }
        }
        HeadPage::Int4 { keys, key_steps, key_middles, .. } => {
            assert!(2 * keys.len() == out.len(), "a page's keys");
            assert!(key_steps.len() == head_dim && key_middles.len() == head_dim, "their channels");
            for pair in 0..head_dim / 2 {
                let channel = |dim: usize| [key_steps[dim], key_middles[dim]].map(widened);
                let (even_channel, odd_channel) = (channel(2 * pair), channel(2 * pair + 1));
                for key in (0..page_len).step_by(S::LANES) {
                    // SAFETY: `key + LANES <= page_len`, in each row of the slices.
                    unsafe {
                        let nibbles = S::load_nibbles(keys.as_ptr().add(pair * page_len + key));
                        let even = out.as_mut_ptr().add(2 * pair * page_len + key);
                        let [step, middle] = even_channel.map(|x| S::splat(x));
                        S::store(even, S::fma(S::low_shorts(nibbles), step, middle));
                        let [step, middle] = odd_channel.map(|x| S::splat(x));
                        let odd = S::fma(S::high_shorts(nibbles), step, middle);
                        S::store(even.add(page_len), odd);
                    }
                }
            }
        }
    }
}

/// Widens the first `n_keys` values into `[page_len][head_dim]`.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn widen_values<S: Simd>(
    layout: PageLayout,
    page: HeadPage<'_>,
    n_keys: usize,
    out: &mut [f32],
) {
    let head_dim = layout.heads.head_dim;
    assert!(
        n_keys <= layout.page_len && out.len() == head_dim * layout.page_len,
        "a page's values"
    );
    match page {
        HeadPage::F16 { values, .. } => {
            let n = n_keys * head_dim;
            // SAFETY: the caller vouches for the instruction set.
            unsafe { widen_halves::<S>(&values[..n], &mut out[..n]) }
        }
        HeadPage::Int8 { values, value_scales, .. } => {
            assert!(values.len() == out.len() && value_scales.len() == layout.page_len, "values");
            for pair in 0..n_keys.div_ceil(2) {
                let scales = [value_scales[2 * pair], value_scales[2 * pair + 1]];
                for dim in (0..head_dim).step_by(S::LANES) {
                    // SAFETY: `dim + LANES <= head_dim`, in each of the slices.
                    unsafe {
                        let bytes = S::load_pairs(values.as_ptr().add(2 * (pair * head_dim + dim)));
                        let even = out.as_mut_ptr().add(2 * pair * head_dim + dim);
                        S::store(even, S::mul(S::low_shorts(bytes), S::splat(scales[0])));
                        let odd = S::mul(S::high_shorts(bytes), S::splat(scales[1]));
                        S::store(even.add(head_dim), odd);
                    }
                }
            }
        }
        HeadPage::Int4 { values, value_steps, .. } => {
            assert!(
                2 * values.len() == out.len() && value_steps.len() == layout.page_len,
                "values"
            );
            for pair in 0..n_keys.div_ceil(2) {
                let steps = [value_steps[2 * pair], value_steps[2 * pair + 1]];
                for dim in (0..head_dim).step_by(S::LANES) {
                    // SAFETY: `dim + LANES <= head_dim`, in each of the slices.
                    unsafe {
                        let nibbles = S::load_nibbles(values.as_ptr().add(pair * head_dim + dim));
                        let even = out.as_mut_ptr().add(2 * pair * head_dim + dim);
                        S::store(even, S::mul(S::low_shorts(nibbles), S::splat(steps[0])));
                        let odd = S::mul(S::high_shorts(nibbles), S::splat(steps[1]));
                        S::store(even.add(head_dim), odd);
                    }
                }
            }
        }
    }
}

/// Rounds keys `[head_dim][page_len]` to pairs `[head_dim / 2][page_len][2]` with a scale a key.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn pair_keys<S: Simd>(
    layout: PageLayout,
    keys: &[f32],
    (pairs, scales): (&mut [i16], &mut [f32]),
) {
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    assert!(keys.len() == head_dim * page_len && pairs.len() == keys.len(), "a page's keys");
    assert!(scales.len() == page_len && page_len.is_multiple_of(16), "a scale a key");
    for key in (0..page_len).step_by(S::LANES) {
        // SAFETY: `key + LANES <= page_len`, in each row of the slices.
        unsafe {
            let keys = keys.as_ptr().add(key);
            let mut max = S::splat(f32::MIN_POSITIVE);
            for dim in 0..head_dim {
                max = S::max(max, S::abs(S::load(keys.add(dim * page_len))));
            }
            let inverse = S::div(S::splat(BOTH_LARGEST), max);
            S::store(scales.as_mut_ptr().add(key), S::mul(max, S::splat(1.0 / BOTH_LARGEST)));
            for pair in 0..head_dim / 2 {
                let even = keys.add(2 * pair * page_len);
                let low = S::mul(S::load(even), inverse);
                let high = S::mul(S::load(even.add(page_len)), inverse);
                let out = pairs.as_mut_ptr().add(2 * (pair * page_len + key));
                S::store_i(out.cast(), S::pack_pairs(low, high));
            }
        }
    }
}

/// Rounds the first `n_keys` values, f16 `[page_len][head_dim]`, to pairs
/// `[page_len / 2][head_dim][2]` with a scale a key; keys after them become zeros.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn pair_halves<S: Simd>(
    head_dim: usize,
    values: &[u16],
    n_keys: usize,
    (pairs, scales): (&mut [i16], &mut [f32]),
) {
    assert!(values.len() == scales.len() * head_dim && pairs.len() == values.len(), "values");
    assert!(head_dim.is_multiple_of(16) && scales.len().is_multiple_of(2), "whole vectors");
    for pair in 0..scales.len() / 2 {
        let mut inverses = [0.0; 2];
        // SAFETY: rows `2 * pair` and the next lie in the slices, a multiple of 16 long.
        unsafe {
            let even = values.as_ptr().add(2 * pair * head_dim);
            for (i, inverse) in inverses.iter_mut().enumerate() {
                if 2 * pair + i >= n_keys {
                    scales[2 * pair + i] = 0.0;
                    continue;
                }
                let mut max = S::splat(0.0);
                for dim in (0..head_dim).step_by(S::LANES) {
                    max = S::max(max, S::abs(S::load_f16(even.add(i * head_dim + dim))));
                }
                (scales[2 * pair + i], *inverse) = step_of(S::reduce_max(max), VALUE_LARGEST);
            }
            for dim in (0..head_dim).step_by(S::LANES) {
                let scaled = |i: usize| {
                    if 2 * pair + i >= n_keys {
                        return S::splat(0.0); // what lies there may not even be a number
                    }
                    S::mul(S::load_f16(even.add(i * head_dim + dim)), S::splat(inverses[i]))
                };
                let out = pairs.as_mut_ptr().add(2 * (pair * head_dim + dim));
                S::store_i(out.cast(), S::pack_pairs(scaled(0), scaled(1)));
            }
        }
    }
}

/// Turns keys `[head_dim][page_len]` by the same angles: cosines of the pairs, then their sines.
#[inline(always)]
unsafe fn turn<S: Simd>(layout: PageLayout, angles: &[f32], keys: &mut [f32]) {
    let n_pairs = layout.heads.n_pairs;
    let page_len = layout.page_len;
    assert!(angles.len() == 2 * n_pairs && keys.len() >= 2 * n_pairs * page_len, "angles fit");
    let partner = n_pairs * page_len;
    for pair in 0..n_pairs {
        for at in (pair * page_len..(pair + 1) * page_len).step_by(S::LANES) {
            // SAFETY: `at` and `at + partner` lie inside the keys.
            unsafe {
                let (cos, sin) = (S::splat(angles[pair]), S::splat(angles[n_pairs + pair]));
                let p = keys.as_mut_ptr().add(at);
                let (low, high) = (S::load(p), S::load(p.add(partner)));
                S::store(p, S::sub(S::mul(low, cos), S::mul(high, sin)));
                S::store(p.add(partner), S::fma(high, cos, S::mul(low, sin)));
            }
        }
    }
}

/// Turns keys `[head_dim][page_len]` back by their offsets: cosines `[pair][page_len]`, then sines.
#[inline(always)]
unsafe fn turn_back_offsets<S: Simd>(layout: PageLayout, angles: &[f32], keys: &mut [f32]) {
    let partner = layout.heads.n_pairs * layout.page_len;
    assert!(angles.len() == 2 * partner && keys.len() >= 2 * partner, "angles fit");
    for at in (0..partner).step_by(S::LANES) {
        // SAFETY: `at` and `at + partner` lie inside keys and angles.
        unsafe {
            let p = keys.as_mut_ptr().add(at);
            let (low, high) = (S::load(p), S::load(p.add(partner)));
            let cos = S::load(angles.as_ptr().add(at));
            let sin = S::load(angles.as_ptr().add(at + partner));
            S::store(p, S::fma(low, cos, S::mul(high, sin)));
            S::store(p.add(partner), S::sub(S::mul(high, cos), S::mul(low, sin)));
        }
    }
}

/// `out = R(-angles) x` for one row: cosines of the pairs, then their sines.
#[inline(always)]
pub fn turn_back_row(x: &[f32], angles: &[f32], out: &mut [f32]) {
    let n_pairs = angles.len() / 2;
    let (cos, sin) = angles.split_at(n_pairs);
    let (low, high) = x[..2 * n_pairs].split_at(n_pairs);
    let (out_low, rest) = out.split_at_mut(n_pairs);
    let (out_high, out_rest) = rest.split_at_mut(n_pairs);
    for i in 0..n_pairs {
        out_low[i] = low[i] * cos[i] + high[i] * sin[i];
        out_high[i] = high[i] * cos[i] - low[i] * sin[i];
    }
    out_rest.copy_from_slice(&x[2 * n_pairs..]);
}

/// `out = x`, f16 to f32; a multiple of 16 long.
#[inline(always)]
unsafe fn widen_halves<S: Simd>(x: &[u16], out: &mut [f32]) {
    assert!(x.len().is_multiple_of(16) && out.len() == x.len(), "whole vectors");
    for i in (0..x.len()).step_by(S::LANES) {
        // SAFETY: `i + LANES <= x.len()`.
        unsafe { S::store(out.as_mut_ptr().add(i), S::load_f16(x.as_ptr().add(i))) }
    }
}

/// A packed page's values as pairs of 16-bit numbers, `[page_len / 2][head_dim][2]`.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn pair_nibbles<S: Simd>(values: &[u8], pairs: &mut [i16]) {
    assert!(pairs.len() == 2 * values.len() && values.len().is_multiple_of(16), "a page's values");
    for at in (0..values.len()).step_by(S::LANES) {
        // SAFETY: `at + LANES <= values.len()`, twice as much for the pairs.
        unsafe {
            let nibbles = S::load_nibbles(values.as_ptr().add(at));
            S::store_i(pairs.as_mut_ptr().add(2 * at).cast(), nibbles);
        }
    }
}

/// Queries against a packed page's nibbles: each element times the step of its channel, the rest,
/// which is the same for all keys, apart: `[row]` in `rests`.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn scale_to_channels<S: Simd>(
    (steps, middles): (&[u16], &[u16]),
    rows: &mut [f32],
    rests: &mut [f32],
) {
    let width = steps.len();
    assert!(middles.len() == width && width.is_multiple_of(16), "whole vectors");
    for (row, rest) in rows.chunks_exact_mut(width).zip(rests) {
        // SAFETY: `i + LANES <= width`, in each of the slices.
        unsafe {
            let mut sum = S::splat(0.0);
            for i in (0..width).step_by(S::LANES) {
                let x = S::load(row.as_ptr().add(i));
                sum = S::fma(x, S::load_f16(middles.as_ptr().add(i)), sum);
                let scaled = S::mul(x, S::load_f16(steps.as_ptr().add(i)));
                S::store(row.as_mut_ptr().add(i), scaled);
            }
            *rest = S::reduce_add(sum);
        }
    }
}

fn widened(half: u16) -> f32 {
    half::f16::from_bits(half).to_f32()
}
