// How are many rows multiplied with weights of 16 bits (prefill)? On tensor cores, tile by tile:
// activations become 16 bits first, a row that halves do not hold with a power of two. FORMAT: 0 for
// halves, 1 for bfloats.
//
//   a block: 128 rows by 128 outputs, 8 warps of 64 by 32
//   copy (cp.async)  kStages tiles of 32 columns under way
//   ldmatrix         rows are 64 bytes, their 16-byte parts mixed so that eight rows are in
//                    different banks
//
//   floor: 2 FLOPs a row, output and column; a tile of weights is read once for 128 rows
#include "platform.cuh"

constexpr u32 kTile = 128;  // rows, and outputs, of a block
constexpr u32 kDepth = 32;  // columns of a stage
constexpr u32 kParts = kDepth / 8;
constexpr u32 kStages = 4;
constexpr u32 kThreads = 256;
constexpr u32 kStageHalves = 2 * kTile * kDepth;  // rows, then outputs
constexpr u32 kRowTiles = 4, kOutputTiles = 4;    // of a warp: 16 rows, 8 outputs each

__device__ __forceinline__ u16 narrowed(float x) {
  return FORMAT == 0 ? float_to_half(x) : float_to_bfloat(x);
}

struct NarrowParams {
  const float* x;  // [row][cols]
  u16* out;        // [row][cols]
  float* units;    // [row]: what 1 of its elements is worth
  u32 n_cols;
};

// A block a row. Where halves do not hold a row as it is (of which what matters is larger than 2^-14), its
// largest element comes to between 2^9 and 2^10: far from the largest half, and what is a thousand times
// smaller still has all its digits. Bfloats hold all that floats do.
KERNEL(narrow_rows, NarrowParams, kThreads) {
  SHARED(float, most_of, kThreads / kWarp);
  const u64 row = u64(blockIdx.x) * p.n_cols;
  float most = 0;
  for (u32 i = threadIdx.x; i < p.n_cols; i += kThreads) {
    const float x = fabsf(p.x[row + i]);
    most = x > most ? x : most;
  }
  most = warp_max(most);
  if (lane_idx() == 0) most_of[warp_idx()] = most;
  __syncthreads();
  for (u32 i = 0; i < kThreads / kWarp; ++i) most = most_of[i] > most ? most_of[i] : most;
  // Bits 23 and up are the exponent: a power of two, and its inverse, without rounding.
  u32 exponent = float_bits(most) >> 23 & 255u;
  exponent = exponent < 20 ? 20 : exponent > 240 ? 240 : exponent;
  const bool is_held = FORMAT == 1 || (most >= 0.0625f && most < 32768.0f);
  const float unit = is_held ? 1.0f : bits_float((exponent - 9) << 23);
  const float inverse = is_held ? 1.0f : bits_float((254 - (exponent - 9)) << 23);
  for (u32 i = threadIdx.x; i < p.n_cols; i += kThreads) {
    p.out[row + i] = narrowed(p.x[row + i] * inverse);
  }
  if (threadIdx.x == 0) p.units[blockIdx.x] = unit;
}

struct ScaleParams {
  float* out;          // [row][output]
  const float* units;  // [row]
  u32 n_outputs;
  u32 divides;
};

// A library multiplies narrowed rows and knows no units: those of a row whose unit is not 1 are divided by it
// before products are added to them, and multiplied after. A block a row; most have nothing to do.
KERNEL(scale_rows, ScaleParams, kThreads) {
  const float unit = p.units[blockIdx.x];
  if (unit == 1) return;
  const float factor = p.divides ? 1 / unit : unit;  // powers of two, and exact
  float* row = p.out + u64(blockIdx.x) * p.n_outputs;
  for (u32 i = threadIdx.x; i < p.n_outputs; i += kThreads) row[i] *= factor;
}

struct TileParams {
  const u16* weights;  // [output][cols]
  const u16* x;        // [row][cols]
  const float* units;  // [row]
  float* out;          // [row][n_outputs]
  u32 n_outputs;
  u32 n_cols;  // a multiple of 8
  u32 n_rows;
  u32 adds;          // to what is there
  u32 shared_bytes;  // that the launcher gave
  u32 padding;
};

// Where part `part` (8 columns) of a row of a tile is, in halves.
__device__ __forceinline__ u32 part_place(u32 row, u32 part) {
  return row * kDepth + (part ^ (row >> 1 & 3)) * 8;
}

// Begins to copy 128 rows of `from`, columns `col` to `col` + 32; zeros where there are none.
__device__ __forceinline__ void copy_tile(u16* to, const u16* from, u32 first_row, u32 n_rows,
                                          u32 col, u32 n_cols) {
  UNROLL
  for (u32 i = threadIdx.x; i < kTile * kParts; i += kThreads) {
    const u32 row = i / kParts, part = i % kParts, at = col + part * 8;
    const bool is_there = first_row + row < n_rows && at < n_cols;
    const u64 place = is_there ? u64(first_row + row) * n_cols + at : 0;
    copy_async_16(to + part_place(row, part), from + place, is_there);
  }
}

// Blocks: [tiles of outputs][tiles of rows].
KERNEL(multiply_tiles, TileParams, kThreads) {
  DYNAMIC_SHARED(shared);
  if (p.shared_bytes < kStages * kStageHalves * 2) return;
  u16* stages = reinterpret_cast<u16*>(shared);
  const u32 first_output = blockIdx.x * kTile, first_row = blockIdx.y * kTile;
  const u32 n_steps = (p.n_cols + kDepth - 1) / kDepth;
  const auto copy = [&](u32 step) {
    if (step < n_steps) {
      u16* stage = stages + step % kStages * kStageHalves;
      copy_tile(stage, p.x, first_row, p.n_rows, step * kDepth, p.n_cols);
      copy_tile(stage + kTile * kDepth, p.weights, first_output, p.n_outputs, step * kDepth,
                p.n_cols);
    }
    copy_async_commit();  // empty at the end, so that as many are waited for as ever
  };
  for (u32 step = 0; step + 1 < kStages; ++step) copy(step);

  const u32 warp_row = warp_idx() / 4 * 64, warp_output = warp_idx() % 4 * 32;
  const u32 lane = lane_idx();
  float sums[kRowTiles][kOutputTiles][4] = {};
  for (u32 step = 0; step < n_steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // all see the stage, and nobody reads the one that is copied to next
    copy(step + kStages - 1);
    const u16* x = stages + step % kStages * kStageHalves;
    const u16* weights = x + kTile * kDepth;
    UNROLL
    for (u32 half = 0; half < kDepth / 16; ++half) {
      u32 b[kOutputTiles][2];
      UNROLL
      for (u32 pair = 0; pair < kOutputTiles / 2; ++pair) {
        // Outputs 0 to 7 and columns 0 to 7, columns 8 to 15, then the same of outputs 8 to 15.
        const u32 row = warp_output + pair * 16 + lane / 16 * 8 + lane % 8;
        u32 four[4];
        ldmatrix(four, weights + part_place(row, half * 2 + lane / 8 % 2));
        b[2 * pair][0] = four[0], b[2 * pair][1] = four[1];
        b[2 * pair + 1][0] = four[2], b[2 * pair + 1][1] = four[3];
      }
      UNROLL
      for (u32 i = 0; i < kRowTiles; ++i) {
        const u32 row = warp_row + i * 16 + lane % 16;
        u32 a[4];
        ldmatrix(a, x + part_place(row, half * 2 + lane / 16));
        UNROLL
        for (u32 j = 0; j < kOutputTiles; ++j) {
          if constexpr (FORMAT == 0) {
            mma_half(sums[i][j], a, b[j]);
          } else {
            mma_bfloat(sums[i][j], a, b[j]);
          }
        }
      }
    }
  }
  copy_async_wait<0>();

  UNROLL
  for (u32 i = 0; i < kRowTiles; ++i) {
    UNROLL
    for (u32 upper = 0; upper < 2; ++upper) {
      const u32 row = first_row + warp_row + i * 16 + upper * 8 + lane / 4;
      if (row >= p.n_rows) continue;
      const float unit = p.units[row];
      UNROLL
      for (u32 j = 0; j < kOutputTiles; ++j) {
        UNROLL
        for (u32 next = 0; next < 2; ++next) {
          const u32 output = first_output + warp_output + j * 8 + lane % 4 * 2 + next;
          if (output >= p.n_outputs) continue;
          float* out = p.out + u64(row) * p.n_outputs + output;
          const float product = sums[i][j][2 * upper + next] * unit;
          *out = p.adds ? *out + product : product;
        }
      }
    }
  }
}
