// What does a transformer do to rows of numbers beside products and attention? Everything here
// reads and writes each element once, so that its floor is the memory's bandwidth: a block a row
// where a row has to be summed, otherwise a thread for each of four elements.
#include "platform.cuh"

constexpr u32 kRowThreads = 256;

// Sum over a block of kRowThreads threads, in every thread.
__device__ __forceinline__ float block_sum(float x) {
  SHARED(float, sums, kRowThreads / kWarp);
  x = warp_sum(x);
  if (lane_idx() == 0) sums[warp_idx()] = x;
  __syncthreads();
  float sum = 0;
  for (u32 i = 0; i < kRowThreads / kWarp; ++i) sum += sums[i];
  __syncthreads();  // nobody writes the sums of the next call before all have read these
  return sum;
}

struct NormParams {
  float* x;            // [row][width]; with `delta`, their sum is written back
  const float* delta;  // [row][width], or none
  const float* gain;   // [width]
  float* out;          // [row][width]
  u32 width;
  float epsilon;
};

// RMSNorm of rows, after adding `delta` where there is one: the residual stream is read and written
// once for both. A block a row.
KERNEL(rms_norm, NormParams, kRowThreads) {
  const u64 row = u64(blockIdx.x) * p.width;
  float sum = 0;
  for (u32 i = threadIdx.x; i < p.width; i += kRowThreads) {
    float x = p.x[row + i];
    if (p.delta) {
      x += p.delta[row + i];
      p.x[row + i] = x;
    }
    sum += x * x;
  }
  const float scale = fast_rsqrt(block_sum(sum) / float(p.width) + p.epsilon);
  for (u32 i = threadIdx.x; i < p.width; i += kRowThreads) {
    p.out[row + i] = p.x[row + i] * scale * p.gain[i];
  }
}

struct HeadNormParams {
  float* x;           // [row][width], a head's elements each
  const float* gain;  // [width]
  u32 n_rows;
  u32 width;
  float epsilon;
};

// RMSNorm of heads, in place. A warp a head.
KERNEL(norm_heads, HeadNormParams, kRowThreads) {
  const u64 row = u64(blockIdx.x) * (kRowThreads / kWarp) + warp_idx();
  const bool is_row = row < p.n_rows;
  float* x = p.x + (is_row ? row : 0) * p.width;
  float sum = 0;
  for (u32 i = lane_idx(); is_row && i < p.width; i += kWarp) sum += x[i] * x[i];
  const float scale = fast_rsqrt(warp_sum(sum) / float(p.width) + p.epsilon);
  for (u32 i = lane_idx(); is_row && i < p.width; i += kWarp) x[i] = x[i] * scale * p.gain[i];
}

struct SwigluParams {
  float* gate;      // [len], silu(gate) * up afterwards
  const float* up;  // [len]
  u64 len;
};

__device__ __forceinline__ float silu(float x) {
  return x * fast_reciprocal(1.0f + fast_exp2(x * -1.4426950408889634f));
}

// A thread for each four elements; the last ones by themselves.
KERNEL(swiglu, SwigluParams, kRowThreads) {
  const u64 at = (u64(blockIdx.x) * kRowThreads + threadIdx.x) * 4;
  if (at + 4 <= p.len) {
    float4 gate = *reinterpret_cast<const float4*>(p.gate + at);
    const float4 up = *reinterpret_cast<const float4*>(p.up + at);
    gate = make_float4(silu(gate.x) * up.x, silu(gate.y) * up.y, silu(gate.z) * up.z,
                       silu(gate.w) * up.w);
    *reinterpret_cast<float4*>(p.gate + at) = gate;
  } else {
    for (u64 i = at; i < p.len; ++i) p.gate[i] = silu(p.gate[i]) * p.up[i];
  }
}

struct BiasParams {
  float* x;           // [row][width]
  const float* bias;  // [width]
  u64 len;            // rows times width
  u32 width;
};

KERNEL(add_bias, BiasParams, kRowThreads) {
  const u64 i = u64(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i < p.len) p.x[i] += p.bias[i % p.width];
}

struct PairParams {
  float* x;  // [row][head_dim]
  u32 n_rows;
  u32 head_dim;
  u32 n_pairs;
};

// Reorders the rotated part of heads from pairs (2i, 2i + 1) to pairs (i, i + n_pairs). A warp a
// head, of at most 256 rotated elements, which are in registers in between.
KERNEL(split_pairs, PairParams, kRowThreads) {
  const u64 row = u64(blockIdx.x) * (kRowThreads / kWarp) + warp_idx();
  const u32 n_pairs = row < p.n_rows ? p.n_pairs : 0;
  float* x = p.x + row * p.head_dim;
  constexpr u32 kMost = 4;
  float2 pairs[kMost];
  for (u32 n = 0; n < kMost; ++n) {
    const u32 i = n * kWarp + lane_idx();
    if (i < n_pairs) pairs[n] = make_float2(x[2 * i], x[2 * i + 1]);
  }
  __syncwarp();
  for (u32 n = 0; n < kMost; ++n) {
    const u32 i = n * kWarp + lane_idx();
    if (i < n_pairs) {
      x[i] = pairs[n].x;
      x[i + n_pairs] = pairs[n].y;
    }
  }
}
