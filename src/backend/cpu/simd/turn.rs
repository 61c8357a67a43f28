//! How do weight rows come to lie side by side? Sixteen bytes of as many rows as a vector has
//! lanes are turned on their side in registers, block by block, as they lie in the file: four
//! bytes of each row make a vector whose lanes are rows. So for the formats whose quants are whole
//! words: Q4_0, Q4_1 and Q8_0. What becomes of the vectors is a [`Sink`]'s: they are multiplied at
//! once (`dot.rs`) or laid down (`fill.rs`).

use std::ops::Range;

use super::vector::Simd;
use crate::tensor::{DType, Matrix};

/// Whether rows of this type are turned as they lie in the file.
pub fn can_be_turned(dtype: DType) -> bool {
    matches!(dtype, DType::Q4_0 | DType::Q4_1 | DType::Q8_0)
}

/// `LANES` rows to be turned.
#[derive(Clone, Copy)]
pub struct Source {
    first: *const u8, // the first block of the first row
    row_bytes: usize,
    n_blocks: usize,
    next: *const u8,
}

impl Source {
    /// Some blocks of up to `S::LANES` rows. Where there are fewer they are copied to `spare`, and
    /// the other lanes turn whatever is there.
    #[inline(always)]
    pub fn new<S: Simd, B: BlockFormat>(
        matrix: &Matrix,
        rows: Range<usize>,
        blocks: Range<usize>,
        spare: &mut Vec<u8>,
    ) -> Self {
        let (row_bytes, n_blocks) = (matrix.cols / 32 * B::BYTES, blocks.len());
        let bytes = &matrix.bytes[rows.start * row_bytes + blocks.start * B::BYTES..];
        let next = std::ptr::null();
        if rows.len() >= S::LANES {
            assert!(rows.end <= matrix.rows && blocks.end * B::BYTES <= row_bytes, "blocks there");
            return Self { first: bytes.as_ptr(), row_bytes, n_blocks, next };
        }
        let len = n_blocks * B::BYTES;
        spare.resize(spare.len().max(S::LANES * len), 0);
        for (i, row) in spare.chunks_exact_mut(len).take(rows.len()).enumerate() {
            row.copy_from_slice(&bytes[i * row_bytes..][..len]);
        }
        Self { first: spare.as_ptr(), row_bytes: len, n_blocks, next }
    }

    /// With what is read later, as much as this: asked for meanwhile, and need not be valid.
    #[inline(always)]
    pub fn followed_by(self, next: *const u8) -> Self {
        Self { next, ..self }
    }
}

/// What takes turned blocks: of each block scales and offsets, then its quads in any order, then
/// its end. A quad is four consecutive quants of each row.
pub trait Sink<S: Simd> {
    /// Scales and offsets of block `block`.
    ///
    /// # Safety
    /// As `Simd`; the block exists.
    unsafe fn scales(&mut self, block: usize, scale: S::F, offset: S::F);
    /// Quad `quad` of block `block`.
    ///
    /// # Safety
    /// As `Simd`; the block exists.
    unsafe fn quad(&mut self, block: usize, quad: usize, weights: S::I);
    /// All quads of block `block` were given.
    ///
    /// # Safety
    /// As `Simd`; the block exists.
    unsafe fn end(&mut self, block: usize);
}

/// Turns all blocks of `source`.
///
/// # Safety
/// The instruction set is present, and the rows still lie where `source` was made from.
#[inline(always)]
pub unsafe fn turn<S: Simd, B: BlockFormat>(source: Source, sink: &mut impl Sink<S>) {
    let in_fours = if B::FIVE_WORDS { source.n_blocks / 4 * 4 } else { 0 };
    let mut block = 0;
    // SAFETY: by the caller's word.
    unsafe {
        while block < in_fours {
            turn_four::<S, B>(source, block, sink);
            block += 4;
        }
        while block < source.n_blocks {
            let n = MAX_HEADS.min(source.n_blocks - block);
            turn_one_by_one::<S, B>(source, block..block + n, sink);
            block += n;
        }
    }
}

/// Turns four blocks of a head and four words each: twenty words, so that the heads are turned
/// with the quants.
#[inline(always)]
unsafe fn turn_four<S: Simd, B: BlockFormat>(
    source: Source,
    first_block: usize,
    sink: &mut impl Sink<S>,
) {
    // SAFETY: by the caller's word.
    unsafe {
        source.ask_for_next::<S, B>(first_block, 4);
        // No loop: what is done with a word must be known when this is compiled.
        turn_four_words::<S, B, 0>(source, first_block, sink);
        turn_four_words::<S, B, 4>(source, first_block, sink);
        turn_four_words::<S, B, 8>(source, first_block, sink);
        turn_four_words::<S, B, 12>(source, first_block, sink);
        turn_four_words::<S, B, 16>(source, first_block, sink);
    }
}

/// Turns the words `FIRST` to `FIRST + 3` of four blocks.
#[inline(always)]
unsafe fn turn_four_words<S: Simd, B: BlockFormat, const FIRST: usize>(
    source: Source,
    first_block: usize,
    sink: &mut impl Sink<S>,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let p = source.first.add(first_block * B::BYTES + 4 * FIRST);
        let words = S::transpose_words(p, source.row_bytes);
        for (j, word) in words.into_iter().enumerate() {
            let (block, place) = (first_block + (FIRST + j) / 5, (FIRST + j) % 5);
            if place == 0 {
                let [scale, offset] = B::scales::<S>(word);
                sink.scales(block, scale, offset);
            } else {
                sink.quad(block, place - 1, S::low_nibbles(word));
                sink.quad(block, place + 3, S::high_nibbles(word));
            }
            if place == 4 {
                sink.end(block);
            }
        }
    }
}

/// Blocks whose heads are gathered at once.
const MAX_HEADS: usize = 8;

#[inline(always)]
unsafe fn turn_one_by_one<S: Simd, B: BlockFormat>(
    source: Source,
    blocks: Range<usize>,
    sink: &mut impl Sink<S>,
) {
    // Heads are moved one by one, well before they are read back as vectors: a load that spans
    // several fresh stores waits for them.
    let mut heads = [[0u32; 16]; MAX_HEADS]; // [block][lane]
    // SAFETY: by the caller's word.
    unsafe {
        for (block, heads) in blocks.clone().zip(&mut heads) {
            for (i, head) in heads[..S::LANES].iter_mut().enumerate() {
                let p = source.first.add(block * B::BYTES + i * source.row_bytes);
                // Volatile, or the compiler makes gathers of this, which are slower.
                std::ptr::from_mut(head).write_volatile(B::head(p));
            }
        }
        for (block, heads) in blocks.zip(&heads) {
            source.ask_for_next::<S, B>(block, 1);
            let [scale, offset] = B::scales::<S>(S::load_i(heads.as_ptr().cast()));
            sink.scales(block, scale, offset);
            B::turn_quants(source.first.add(block * B::BYTES), source.row_bytes, block, sink);
            sink.end(block);
        }
    }
}

impl Source {
    /// Asks for as much of what comes next as `n` blocks from `block` on are of this.
    #[inline(always)]
    unsafe fn ask_for_next<S: Simd, B: BlockFormat>(&self, block: usize, n: usize) {
        let p = self.next.wrapping_add(S::LANES * block * B::BYTES);
        for line in 0..(S::LANES * n * B::BYTES).div_ceil(64) {
            // SAFETY: prefetching takes any address; the caller vouches for the instruction set.
            unsafe { S::prefetch_early(p.wrapping_add(64 * line)) }
        }
    }
}

/// A format whose blocks of 32 can be turned as they are.
pub trait BlockFormat {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether a block is five words: its head, then nibbles.
    const FIVE_WORDS: bool;
    /// Whether quants may exceed 127.
    const WIDE: bool;
    /// The scale of the block at `p` in the lower half; in the upper half its offset, if any.
    ///
    /// # Safety
    /// A block lies at `p`.
    unsafe fn head(p: *const u8) -> u32;
    /// Scales and offsets from heads.
    ///
    /// # Safety
    /// The instruction set is present.
    unsafe fn scales<S: Simd>(heads: S::I) -> [S::F; 2];
    /// Turns the quants of a block.
    ///
    /// # Safety
    /// Blocks lie at `p` and every `row_bytes` from there.
    unsafe fn turn_quants<S: Simd>(
        p: *const u8,
        row_bytes: usize,
        block: usize,
        sink: &mut impl Sink<S>,
    );
}

/// See `tensor::DType`.
#[allow(non_camel_case_types)]
pub struct Q4_0;
/// See `tensor::DType`.
#[allow(non_camel_case_types)]
pub struct Q4_1;
/// See `tensor::DType`.
#[allow(non_camel_case_types)]
pub struct Q8_0;

impl BlockFormat for Q4_0 {
    const BYTES: usize = 18;
    const FIVE_WORDS: bool = false;
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn head(p: *const u8) -> u32 {
        // SAFETY: by the caller's word.
        unsafe { p.cast::<u16>().read_unaligned().into() }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(heads: S::I) -> [S::F; 2] {
        // SAFETY: by the caller's word.
        unsafe { scales_without_offsets::<S>(heads, -8.0) }
    }
    #[inline(always)]
    unsafe fn turn_quants<S: Simd>(
        p: *const u8,
        row_bytes: usize,
        block: usize,
        sink: &mut impl Sink<S>,
    ) {
        // SAFETY: by the caller's word.
        unsafe { turn_nibbles(p.add(2), row_bytes, block, sink) }
    }
}

impl BlockFormat for Q4_1 {
    const BYTES: usize = 20;
    const FIVE_WORDS: bool = true;
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn head(p: *const u8) -> u32 {
        // SAFETY: by the caller's word.
        unsafe { p.cast::<u32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(heads: S::I) -> [S::F; 2] {
        // SAFETY: by the caller's word.
        unsafe { S::split_halves(heads) }
    }
    #[inline(always)]
    unsafe fn turn_quants<S: Simd>(
        p: *const u8,
        row_bytes: usize,
        block: usize,
        sink: &mut impl Sink<S>,
    ) {
        // SAFETY: by the caller's word.
        unsafe { turn_nibbles(p.add(4), row_bytes, block, sink) }
    }
}

impl BlockFormat for Q8_0 {
    const BYTES: usize = 34;
    const FIVE_WORDS: bool = false;
    const WIDE: bool = true;
    #[inline(always)]
    unsafe fn head(p: *const u8) -> u32 {
        // SAFETY: by the caller's word.
        unsafe { p.cast::<u16>().read_unaligned().into() }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(heads: S::I) -> [S::F; 2] {
        // SAFETY: by the caller's word.
        unsafe { scales_without_offsets::<S>(heads, -128.0) }
    }
    #[inline(always)]
    unsafe fn turn_quants<S: Simd>(
        p: *const u8,
        row_bytes: usize,
        block: usize,
        sink: &mut impl Sink<S>,
    ) {
        for half in 0..2 {
            // SAFETY: by the caller's word.
            unsafe {
                let words = S::transpose_words(p.add(2 + 16 * half), row_bytes);
                for (j, word) in words.into_iter().enumerate() {
                    sink.quad(block, 4 * half + j, S::flip_signs(word));
                }
            }
        }
    }
}

/// Scales, and offsets that are `factor` times the scale.
#[inline(always)]
unsafe fn scales_without_offsets<S: Simd>(heads: S::I, factor: f32) -> [S::F; 2] {
    // SAFETY: by the caller's word.
    unsafe {
        let [scale, _] = S::split_halves(heads);
        [scale, S::mul(scale, S::splat(factor))]
    }
}

/// 32 weights of each row: the lower nibbles of 16 bytes, then the upper ones.
#[inline(always)]
unsafe fn turn_nibbles<S: Simd>(
    p: *const u8,
    row_bytes: usize,
    block: usize,
    sink: &mut impl Sink<S>,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let words = S::transpose_words(p, row_bytes);
        for (j, word) in words.into_iter().enumerate() {
            sink.quad(block, j, S::low_nibbles(word));
            sink.quad(block, 4 + j, S::high_nibbles(word));
        }
    }
}
