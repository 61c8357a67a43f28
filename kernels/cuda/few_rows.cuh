// What do products of few rows have in common? A warp has some outputs, each lane a part of the sums,
// which come together here.
#pragma once
#include "platform.cuh"

constexpr u32 kWarps = 4;
constexpr u32 kRowsOfWarp = 2;  // outputs, which share the loads of activations

// Writes, or adds, the sums over a warp's lanes of outputs `first` and the next: out[row][output].
__device__ __forceinline__ void deliver(const float (&sums)[kRowsOfWarp][TOKENS], u32 first,
                                        float* out, u32 n_outputs, u32 n_rows, bool adds) {
  UNROLL
  for (u32 r = 0; r < kRowsOfWarp; ++r) {
    UNROLL
    for (u32 token = 0; token < TOKENS; ++token) {
      const float sum = warp_sum(sums[r][token]);
      if (lane_idx() == 0 && token < n_rows && first + r < n_outputs) {
        float* at = out + u64(token) * n_outputs + first + r;
        *at = adds ? *at + sum : sum;
      }
    }
  }
}
