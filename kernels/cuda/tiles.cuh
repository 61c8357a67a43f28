// How do keys get into tensor cores? A round is 64 keys of a page against 16 rows of queries, 16
// dimensions a step: eight products of 16 by 16 with 16 by 8. Of column g of product j the key is 8
// g + j, so that what a lane needs of all eight lies side by side in the page.
#pragma once
#include "pages.cuh"

constexpr u32 kRows = 16;
constexpr u32 kKeys = 64;  // of a round: eight tiles of eight
constexpr u32 kSteps = HEAD_DIM / 16;
constexpr float kNone = -3.0e38f;  // below every score, and a number: no difference of two is a NaN

// Loads of so many steps are under way at once: as registers allow.
#if HEAD_DIM > 128
#define UNROLL_STEPS NO_UNROLL
#else
#define UNROLL_STEPS UNROLL_TWO
#endif

// Bytes as halves: the first two of `bytes` and the last two.
__device__ __forceinline__ void widen_bytes(u32 bytes, u32& low, u32& high) {
  const u32 lifted = bytes ^ 0x80808080u;  // + 128; with 0x64 above, the half 1024 + that
  low = subtract_halves(permute(lifted, 0x64646464u, 0x4140), 0x64806480u);
  high = subtract_halves(permute(lifted, 0x64646464u, 0x4342), 0x64806480u);
}
// Two nibbles, at bits 0 and 16, as halves: the nibble less 8.
__device__ __forceinline__ u32 widen_nibbles(u32 nibbles) {
  return subtract_halves(nibbles | 0x64006400u, 0x64086408u);
}
__device__ __forceinline__ u32 byte_of(u32 word, u32 i) { return word >> (8 * i) & 0xffu; }
__device__ __forceinline__ u32 both_halves(u16 half) { return u32(half) * 0x10001u; }
__device__ __forceinline__ u32 word_of(const uint4& words, u32 i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
__device__ __forceinline__ u16 half_of(const uint4& words, u32 i) {
  return u16(word_of(words, i / 2) >> (i % 2 * 16));
}
__device__ __forceinline__ uint4 load_16(const u8* at) {
  return *reinterpret_cast<const uint4*>(at);
}

// What int4 keys' channels `dim` and the next make of a query: factors on its elements, and what a
// query's elements times `shifts` add to all its scores.
__device__ __forceinline__ void channel_steps(const u8* keys, u32 dim, float2& steps,
                                              float2& shifts) {
  const u8* channels = keys + kPart / 2 + 2 * dim;
  const float2 of = halves_to_floats(*reinterpret_cast<const u32*>(channels));
  const float2 middles = halves_to_floats(*reinterpret_cast<const u32*>(channels + 2 * HEAD_DIM));
  shifts = make_float2(middles.x + of.x, middles.y + of.y);
  steps = make_float2(2 * of.x, 2 * of.y);
}

// The keys of a step: of column g of tile j the key 8 g + j.
template <u32 TYPE>
__device__ __forceinline__ void key_step(const u8* keys, u32 step, u32 first_key, u32 (&b)[8][2]) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  const u32 key = first_key + 8 * g;
  UNROLL
  for (u32 half = 0; half < 2; ++half) {
    const u32 pair = step * 8 + half * 4 + t;
    if (TYPE == kF16) {
      const uint4 even = load_16(keys + (2 * pair * PAGE_LEN + key) * 2);
      const uint4 odd = load_16(keys + ((2 * pair + 1) * PAGE_LEN + key) * 2);
      UNROLL
      for (u32 i = 0; i < 4; ++i) {
        b[2 * i][half] = permute(word_of(even, i), word_of(odd, i), 0x5410);
        b[2 * i + 1][half] = permute(word_of(even, i), word_of(odd, i), 0x7632);
      }
    } else if (TYPE == kInt8) {
      const uint4 bytes = load_16(keys + (pair * PAGE_LEN + key) * 2);
      UNROLL
      for (u32 i = 0; i < 4; ++i) {
        widen_bytes(word_of(bytes, i), b[2 * i][half], b[2 * i + 1][half]);
      }
    } else {
      const uint2 nibbles = *reinterpret_cast<const uint2*>(keys + pair * PAGE_LEN + key);
      UNROLL
      for (u32 j = 0; j < 8; ++j) {
        const u32 byte = byte_of(j < 4 ? nibbles.x : nibbles.y, j % 4);
        b[j][half] = widen_nibbles((byte & 0xfu) | (byte & 0xf0u) << 12);
      }
    }
  }
  if (TYPE == kInt8) {
    const uint4 scales = load_16(keys + kPart + (step * PAGE_LEN + key) * 2);
    UNROLL
    for (u32 j = 0; j < 8; ++j) {
      const u32 scale = both_halves(half_of(scales, j));
      UNROLL
      for (u32 half = 0; half < 2; ++half) b[j][half] = multiply_halves(b[j][half], scale);
    }
  }
}
