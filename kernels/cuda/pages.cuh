// Where are keys and values in a page? In pages of PAGE_LEN consecutive tokens; of a layer and a KV
// head there are keys, then values, each with their scales, in one of three types:
//
//   f16   keys [HEAD_DIM][PAGE_LEN], values [PAGE_LEN][HEAD_DIM]
//   int8  keys [HEAD_DIM / 2][PAGE_LEN][2], their scales [HEAD_DIM / 16][PAGE_LEN] f16,
//         values [PAGE_LEN / 2][HEAD_DIM][2], their scales [PAGE_LEN] f32
//   int4  keys [HEAD_DIM / 2][PAGE_LEN], the even dimension in the lower nibble, their channels'
//         steps [HEAD_DIM] and middles [HEAD_DIM] f16, values [PAGE_LEN / 2][HEAD_DIM], the even
//         token in the lower nibble, steps [PAGE_LEN] f32; a nibble n stands for 2n - 15 steps
//
// Keys are rotated by their slot in the page; a query is rotated by what is left of the distance.
#pragma once
#include "platform.cuh"

constexpr u32 kF16 = 0, kInt8 = 1, kInt4 = 2;
constexpr u32 kKeyGroup = 16;
constexpr u32 kPart = HEAD_DIM * PAGE_LEN;  // elements of keys, or of values

__device__ __forceinline__ u32 key_bytes(u32 kv_type) {
  if (kv_type == kF16) return 2 * kPart;
  if (kv_type == kInt8) return kPart + kPart / kKeyGroup * 2;
  return kPart / 2 + 2 * HEAD_DIM * 2;
}
__device__ __forceinline__ u32 head_bytes(u32 kv_type) {
  if (kv_type == kF16) return 4 * kPart;
  if (kv_type == kInt8) return key_bytes(kInt8) + kPart + 4 * PAGE_LEN;
  return key_bytes(kInt4) + kPart / 2 + 4 * PAGE_LEN;
}

// A page among those that a sequence attends to.
struct Page {
  const u8* layer;  // [kv_head]: the layer's part
  u32 n_keys;       // that are there, from the first
  u32 first_index;  // of the text
  u32 placement;    // row of the table of angles: where the first key stands
  u32 kv_type;
};

// Element `dim` of a head turned by `angles`, [2][N_PAIRS]: cosines, then sines.
__device__ __forceinline__ float rotated(const float* x, u32 dim, const float* angles) {
  if (dim < N_PAIRS) return x[dim] * angles[dim] - x[dim + N_PAIRS] * angles[N_PAIRS + dim];
  if (dim < 2 * N_PAIRS) {
    const u32 pair = dim - N_PAIRS;
    return x[pair] * angles[N_PAIRS + pair] + x[dim] * angles[pair];
  }
  return x[dim];
}
