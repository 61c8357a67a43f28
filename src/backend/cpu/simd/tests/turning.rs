//! The words in which rows are turned side by side, on every instruction set.

use fastrand::Rng;
use half::f16;

use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::simd::vector::{Kernel, Simd};

/// Most lanes of any set.
const LANES: usize = 16;

/// Sixteen bytes of `LANES` rows, turned, and what is made of the words.
struct Turn<'a> {
    rows: &'a [u8], // [LANES][stride]
    stride: usize,
    words: &'a mut [[u8; 4 * LANES]; 4],
    low: &'a mut [u8; 4 * LANES],
    high: &'a mut [u8; 4 * LANES],
    flipped: &'a mut [u8; 4 * LANES],
    halves: [&'a mut [f32; LANES]; 2],
    sums: &'a mut [i32; LANES],
}

impl Kernel for Turn<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        assert!(self.rows.len() >= (LANES - 1) * self.stride + 16, "rows");
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES` rows are there, as is checked above; the caller
            // vouches for the instruction set.
            unsafe {
                let rows = self.rows.as_ptr().add(i * self.stride);
                let words = S::transpose_words(rows, self.stride);
                for (out, word) in self.words.iter_mut().zip(words) {
                    S::store_i(out.as_mut_ptr().add(4 * i), word);
                }
                let word = words[0];
                S::store_i(self.low.as_mut_ptr().add(4 * i), S::low_nibbles(word));
                S::store_i(self.high.as_mut_ptr().add(4 * i), S::high_nibbles(word));
                S::store_i(self.flipped.as_mut_ptr().add(4 * i), S::flip_signs(word));
                let [lower, upper] = S::split_halves(word);
                S::store(self.halves[0].as_mut_ptr().add(i), lower);
                S::store(self.halves[1].as_mut_ptr().add(i), upper);
                let sums = S::add_ints(S::low_nibbles(word), S::high_nibbles(word));
                S::store_i(self.sums.as_mut_ptr().add(i).cast(), sums);
            }
        }
    }
}

#[test]
fn rows_are_turned_word_by_word_and_the_words_taken_apart() {
    let mut rng = Rng::with_seed(6);
    for stride in [16, 20, 360, 961] {
        let mut rows: Vec<u8> = (0..LANES * stride).map(|_| rng.u8(..)).collect();
        for row in rows.chunks_exact_mut(stride) {
            // The first word also is two halves, which must be finite.
            (row[1], row[3]) = (row[1] & 0xbb, row[3] & 0xbb);
        }
        let word = |j: usize| -> [u8; 4 * LANES] {
            std::array::from_fn(|at| rows[at / 4 * stride + 4 * j + at % 4])
        };
        let first = word(0);
        let half = |lane: usize, at: usize| {
            let bits = [first[4 * lane + at], first[4 * lane + at + 1]];
            f16::from_bits(u16::from_le_bytes(bits)).to_f32()
        };
        for isa in Isa::under_test() {
            let (mut words, mut sums) = ([[0; 4 * LANES]; 4], [0; LANES]);
            let [mut low, mut high, mut flipped] = [[0; 4 * LANES]; 3];
            let [mut lower, mut upper] = [[0.0; LANES]; 2];
            isa.run(Turn {
                rows: &rows,
                stride,
                words: &mut words,
                low: &mut low,
                high: &mut high,
                flipped: &mut flipped,
                halves: [&mut lower, &mut upper],
                sums: &mut sums,
            });
            assert_eq!(words, [0, 1, 2, 3].map(word), "{}", isa.name());
            assert_eq!(low, first.map(|byte| byte & 15), "{}", isa.name());
            assert_eq!(high, first.map(|byte| byte >> 4), "{}", isa.name());
            assert_eq!(flipped, first.map(|byte| byte ^ 0x80), "{}", isa.name());
            assert_eq!(lower, std::array::from_fn(|lane| half(lane, 0)), "{}", isa.name());
            assert_eq!(upper, std::array::from_fn(|lane| half(lane, 2)), "{}", isa.name());
            let sum = |lane: usize| {
                let [low, high] = [&low, &high].map(|bytes| {
                    i32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * lane + byte]))
                });
                low + high
            };
            assert_eq!(sums, std::array::from_fn(sum), "{}", isa.name());
        }
    }
}
