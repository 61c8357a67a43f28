// How are few rows multiplied with quantised weights (decoding)? Weights stay as they are, 4 or 8
// bits with a scale and a least value for each 32; activations become 12 bits, 16 q0 + q1, with a
// scale for each 32, so that what is summed over a block are integers (dp4a), exactly, and the same
// ones as on the CPU.
//
//   floor: the weights' bytes, once for TOKENS rows
//   work: 2 dp4a for each four weights and row
#include "few_rows.cuh"

constexpr u32 kBlock = 32;  // weights that share a scale
constexpr u32 kWords = BITS;    // of a block of weights

struct RoundParams {
  const float* x;  // [row][cols]
  i8* terms;       // [row][block][2][32]: q0, q1
  float2* units;   // [row][block]: what 16 q0 + q1 = 1 is worth, the sum of the block
  u32 n_blocks;    // of all rows
  u32 padding;
};

// A warp a block of 32 activations, a lane each.
KERNEL(round_rows, RoundParams, 256) {
  const u32 block = blockIdx.x * 8 + warp_idx();
  const bool is_block = block < p.n_blocks;
  const float x = is_block ? p.x[u64(block) * kBlock + lane_idx()] : 0;
  const float most = warp_max(fabsf(x));
  const float scaled = most > 0 ? x * (127 / most) : 0;
  const float q0 = rintf(scaled), q1 = rintf((scaled - q0) * 16);
  const float unit = most * (1.0f / (127 * 16));
  const float sum = warp_sum(16 * q0 + q1);
  if (!is_block) return;
  i8* terms = p.terms + u64(block) * 2 * kBlock + lane_idx();
  terms[0] = i8(q0);
  terms[kBlock] = i8(q1);
  if (lane_idx() == 0) p.units[block] = make_float2(unit, unit * sum);
}

struct MultiplyParams {
  const u8* weights;    // [output][block]: of 4 bits 16 bytes, lower nibbles first; of 8 bits 32
  const u32* scales;    // [output][block]: two halves, the scale and what is added to each weight
  const i8* terms;      // [row][block][2][32]
  const float2* units;  // [row][block]
  float* out;           // [row][n_outputs]
  u32 n_outputs;
  u32 n_blocks;  // of a row
  u32 n_rows;    // up to TOKENS
  u32 adds;      // to what is there
};

// A block of weights as words of four bytes, in the order of the activations.
__device__ __forceinline__ void weight_words(const u8* at, int (&words)[8]) {
  const uint4 first = *reinterpret_cast<const uint4*>(at);
  const u32 of[4] = {first.x, first.y, first.z, first.w};
  if constexpr (BITS == 4) {
    UNROLL
    for (u32 i = 0; i < 4; ++i) {
      words[i] = int(of[i] & 0x0f0f0f0fu);
      words[4 + i] = int(of[i] >> 4 & 0x0f0f0f0fu);
    }
  } else {
    const uint4 second = *reinterpret_cast<const uint4*>(at + 16);
    const u32 rest[4] = {second.x, second.y, second.z, second.w};
    UNROLL
    for (u32 i = 0; i < 4; ++i) words[i] = int(of[i]), words[4 + i] = int(rest[i]);
  }
}

// Blocks: [groups of kWarps * kRowsOfWarp outputs]; a lane takes every 32nd block of weights.
KERNEL(multiply_rows, MultiplyParams, kWarps* kWarp) {
  const u32 first = (blockIdx.x * kWarps + warp_idx()) * kRowsOfWarp;
  float sums[kRowsOfWarp][TOKENS] = {};
  for (u32 block = lane_idx(); block < p.n_blocks; block += kWarp) {
    int words[kRowsOfWarp][8];
    float2 scales[kRowsOfWarp];
    UNROLL
    for (u32 r = 0; r < kRowsOfWarp; ++r) {
      const u32 output = first + r < p.n_outputs ? first + r : p.n_outputs - 1;
      const u64 at = u64(output) * p.n_blocks + block;
      weight_words(p.weights + at * 4 * kWords, words[r]);
      scales[r] = halves_to_floats(p.scales[at]);
    }
    UNROLL
    for (u32 token = 0; token < TOKENS; ++token) {
      const u64 at = u64(token < p.n_rows ? token : 0) * p.n_blocks + block;
      const uint4* terms = reinterpret_cast<const uint4*>(p.terms + at * 2 * kBlock);
      const float2 unit = p.units[at];
      int parts[kRowsOfWarp][2] = {};
      UNROLL
      for (u32 term = 0; term < 2; ++term) {
        UNROLL
        for (u32 half = 0; half < 2; ++half) {
          const uint4 four = terms[2 * term + half];
          const u32 q[4] = {four.x, four.y, four.z, four.w};
          UNROLL
          for (u32 r = 0; r < kRowsOfWarp; ++r) {
            UNROLL
            for (u32 i = 0; i < 4; ++i) {
              parts[r][term] = dot4(words[r][4 * half + i], int(q[i]), parts[r][term]);
            }
          }
        }
      }
      UNROLL
      for (u32 r = 0; r < kRowsOfWarp; ++r) {
        const float product = float(16 * parts[r][0] + parts[r][1]);
        sums[r][token] += product * (unit.x * scales[r].x) + unit.y * scales[r].y;
      }
    }
  }
  deliver(sums, first, p.out, p.n_outputs, p.n_rows, p.adds);
}

struct WidenParams {
  const u8* weights;  // as of MultiplyParams: [block]
  const u32* scales;
  u16* out;  // [block][32] halves
  u32 n_blocks;  // of all outputs
  u32 padding;
};

// What weights stand for, as halves, for products of many rows (dense_many.cu). Eight weights a lane.
KERNEL(widen_weights, WidenParams, 256) {
  const u32 eight = blockIdx.x * 256 + threadIdx.x;
  const u32 block = eight / 4, part = eight % 4;
  if (block >= p.n_blocks) return;
  const float2 scale = halves_to_floats(p.scales[block]);
  const u8* weights = p.weights + u64(block) * 4 * kWords;
  const u32 at = BITS == 4 ? part % 2 * 8 : part * 8;
  const uint2 bytes = *reinterpret_cast<const uint2*>(weights + at);
  u32 pairs[4];
  UNROLL
  for (u32 i = 0; i < 4; ++i) {
    const u32 two = (i < 2 ? bytes.x : bytes.y) >> (i % 2 * 16);
    float of[2];
    UNROLL
    for (u32 k = 0; k < 2; ++k) {
      const u32 byte = two >> (8 * k) & 255;
      const int weight = BITS == 4 ? int(byte >> (part / 2 * 4) & 15) : int(i8(byte));
      of[k] = float(weight) * scale.x + scale.y;
    }
    pairs[i] = floats_to_halves(of[0], of[1]);
  }
  const uint4 halves = {pairs[0], pairs[1], pairs[2], pairs[3]};
  *reinterpret_cast<uint4*>(p.out + u64(eight) * 8) = halves;
}

struct EmbedParams {
  const u8* weights;  // as of MultiplyParams: [token id][block]
  const u32* scales;
  const u32* ids;  // [row]
  float* out;      // [row][cols]
  u32 n_blocks;
  u32 n_rows;
};

// Blocks: [row][groups of 8 blocks of weights]; a warp a block of weights.
KERNEL(embed_rows, EmbedParams, 256) {
  const u32 row = blockIdx.x, block = blockIdx.y * 8 + warp_idx();
  if (block >= p.n_blocks) return;
  const u64 at = u64(p.ids[row]) * p.n_blocks + block;
  const float2 scale = halves_to_floats(p.scales[at]);
  const u8* weights = p.weights + at * 4 * kWords;
  int weight;
  if constexpr (BITS == 4) {
    weight = weights[lane_idx() % 16] >> (lane_idx() / 16 * 4) & 15;
  } else {
    weight = i8(weights[lane_idx()]);
  }
  p.out[u64(row) * p.n_blocks * kBlock + block * kBlock + lane_idx()] =
      float(weight) * scale.x + scale.y;
}
