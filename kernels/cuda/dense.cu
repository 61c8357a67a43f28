// How are few rows multiplied with weights of 16 bits? Weights and activations become floats in
// registers, and sums are floats. FORMAT: 0 for halves, 1 for bfloats.
//
//   floor: the weights' bytes, once for TOKENS rows
//   work: 2 FLOPs a weight and row
#include "few_rows.cuh"

constexpr u32 kEach = 8;        // weights that a lane loads at once: 16 bytes

struct DenseParams {
  const u16* weights;  // [output][cols]
  const float* x;      // [row][cols]
  float* out;          // [row][n_outputs]
  u32 n_outputs;
  u32 n_cols;  // a multiple of kEach
  u32 n_rows;  // up to TOKENS
  u32 adds;    // to what is there
};

__device__ __forceinline__ float widened(u16 weight) {
  return FORMAT == 0 ? half_to_float(weight) : bfloat_to_float(weight);
}

__device__ __forceinline__ void widen_eight(const u16* at, float (&out)[kEach]) {
  const uint4 words = *reinterpret_cast<const uint4*>(at);
  const u32 of[4] = {words.x, words.y, words.z, words.w};
  UNROLL
  for (u32 i = 0; i < 4; ++i) {
    out[2 * i] = widened(u16(of[i]));
    out[2 * i + 1] = widened(u16(of[i] >> 16));
  }
}

// Blocks: [groups of kWarps * kRowsOfWarp outputs]; a lane takes every 32nd eight weights.
KERNEL(multiply_dense, DenseParams, kWarps* kWarp) {
  const u32 first = (blockIdx.x * kWarps + warp_idx()) * kRowsOfWarp;
  float sums[kRowsOfWarp][TOKENS] = {};
  for (u32 col = lane_idx() * kEach; col < p.n_cols; col += kWarp * kEach) {
    float weights[kRowsOfWarp][kEach];
    UNROLL
    for (u32 r = 0; r < kRowsOfWarp; ++r) {
      const u32 output = first + r < p.n_outputs ? first + r : p.n_outputs - 1;
      widen_eight(p.weights + u64(output) * p.n_cols + col, weights[r]);
    }
    UNROLL
    for (u32 token = 0; token < TOKENS; ++token) {
      const u64 row = token < p.n_rows ? token : 0;
      const float4* x = reinterpret_cast<const float4*>(p.x + row * p.n_cols + col);
      UNROLL
      for (u32 half = 0; half < 2; ++half) {
        const float4 four = x[half];
        UNROLL
        for (u32 r = 0; r < kRowsOfWarp; ++r) {
          const float* w = weights[r] + 4 * half;
          float sum = sums[r][token];
          sum = fmaf(w[0], four.x, sum);
          sum = fmaf(w[1], four.y, sum);
          sum = fmaf(w[2], four.z, sum);
          sums[r][token] = fmaf(w[3], four.w, sum);
        }
      }
    }
  }
  deliver(sums, first, p.out, p.n_outputs, p.n_rows, p.adds);
}

struct DenseEmbedParams {
  const u16* weights;  // [token id][cols]
  const u32* ids;      // [row]
  float* out;          // [row][cols]
  u32 n_cols;
  u32 n_rows;
};

// Blocks: [row][groups of 256 columns].
KERNEL(embed_dense, DenseEmbedParams, 256) {
  const u32 row = blockIdx.x, col = blockIdx.y * 256 + threadIdx.x;
  if (col >= p.n_cols) return;
  p.out[u64(row) * p.n_cols + col] = widened(p.weights[u64(p.ids[row]) * p.n_cols + col]);
}
