// How do new keys and values get into pages? Keys are rotated by their slots and both are rounded
// to the page's type as they are written, so that no float copy of them is ever read again. A warp
// a token and KV head.
//
//   floor: reads 8 bytes an element, writes what the type takes
#include "pages.cuh"

constexpr u32 kWarps = 4;
constexpr u32 kPer = (HEAD_DIM + kWarp - 1) / kWarp;  // elements a lane, at most

struct Slot {
  u8* layer;  // the page's part of the layer: [kv_head]
  u32 slot;
  u32 kv_type;  // f16 or int8: pages become int4 when they are full
};

struct WriteParams {
  const float* keys;    // [row][kv_head][HEAD_DIM], not rotated
  const float* values;  // the same
  const float* angles;  // [slot][2][N_PAIRS]: cosines, then sines
  const Slot* slots;    // [row]
  u32 n_rows;
  u32 n_kv_heads;
};

__device__ __forceinline__ int rounded(float x, float inverse) {
  const float q = rintf(x * inverse);
  return int(q > 127 ? 127 : q < -127 ? -127 : q);
}

KERNEL(write_pages, WriteParams, kWarps* kWarp) {
  const u32 at = blockIdx.x * kWarps + warp_idx();
  const bool is_there = at < p.n_rows * p.n_kv_heads;
  const u32 row = is_there ? at / p.n_kv_heads : 0, kv_head = is_there ? at % p.n_kv_heads : 0;
  const Slot to = p.slots[row];
  const float* key = p.keys + u64(row * p.n_kv_heads + kv_head) * HEAD_DIM;
  const float* value = p.values + u64(row * p.n_kv_heads + kv_head) * HEAD_DIM;
  const float* angles = p.angles + to.slot * 2 * N_PAIRS;
  u8* keys = to.layer + u64(kv_head) * head_bytes(to.kv_type);
  u8* values = keys + key_bytes(to.kv_type);

  float most_value = 0;
  UNROLL
  for (u32 i = 0; i < kPer; ++i) {
    const u32 dim = i * kWarp + lane_idx();
    const bool is_dim = dim < HEAD_DIM;
    const float x = is_dim ? rotated(key, dim, angles) : 0;
    const float v = is_dim ? value[dim] : 0;
    most_value = fmaxf(most_value, fabsf(v));
    if (to.kv_type == kF16) {
      if (is_dim && is_there) {
        reinterpret_cast<u16*>(keys)[dim * PAGE_LEN + to.slot] = float_to_half(x);
        reinterpret_cast<u16*>(values)[to.slot * HEAD_DIM + dim] = float_to_half(v);
      }
      continue;
    }
    // The largest of the sixteen dimensions that share a scale, which sixteen lanes hold.
    float most = fabsf(x);
    UNROLL
    for (u32 step = 1; step < kKeyGroup; step *= 2) most = fmaxf(most, shuffle_xor(most, step));
    u16 half = float_to_half(most * (1.0f / 127));
    if (half_to_float(half) * 127 < most) half += 1;  // so that all of them are within reach
    const float scale = half_to_float(half);
    const int q = rounded(x, scale > 0 ? 1 / scale : 0);
    if (is_dim && is_there) {
      keys[(dim / 2 * PAGE_LEN + to.slot) * 2 + dim % 2] = u8(q);
      if (dim % kKeyGroup == 0) {
        reinterpret_cast<u16*>(keys + kPart)[dim / kKeyGroup * PAGE_LEN + to.slot] = half;
      }
    }
  }
  if (to.kv_type == kF16) return;
  most_value = warp_max(most_value);
  const float inverse = most_value > 0 ? 127 / most_value : 0;
  UNROLL
  for (u32 i = 0; i < kPer; ++i) {
    const u32 dim = i * kWarp + lane_idx();
    if (dim < HEAD_DIM && is_there) {
      values[(to.slot / 2 * HEAD_DIM + dim) * 2 + to.slot % 2] = u8(rounded(value[dim], inverse));
    }
  }
  if (lane_idx() == 0 && is_there) {
    reinterpret_cast<float*>(values + kPart)[to.slot] = most_value * (1.0f / 127);
  }
}

struct PackParams {
  const u8* from;  // a full int8 page's layer: [kv_head]
  u8* to;          // the same as int4
  u32 n_kv_heads;
  u32 padding;
};

// A full page of bytes as nibbles. Blocks: [kv_head]; a warp takes a channel of keys, then a
// token's values.
KERNEL(pack_pages, PackParams, 8 * kWarp) {
  const u8* keys = p.from + u64(blockIdx.x) * head_bytes(kInt8);
  const u8* values = keys + key_bytes(kInt8);
  u8* to = p.to + u64(blockIdx.x) * head_bytes(kInt4);
  u8* to_values = to + key_bytes(kInt4);
  const u16* scales = reinterpret_cast<const u16*>(keys + kPart);
  const float* value_scales = reinterpret_cast<const float*>(values + kPart);
  // Two channels at once, whose nibbles share bytes.
  for (u32 pair = warp_idx(); pair < HEAD_DIM / 2; pair += 8) {
    float most[2] = {-3e38f, -3e38f}, least[2] = {3e38f, 3e38f};
    for (u32 slot = lane_idx(); slot < PAGE_LEN; slot += kWarp) {
      const float scale = half_to_float(scales[2 * pair / kKeyGroup * PAGE_LEN + slot]);
      for (u32 odd = 0; odd < 2; ++odd) {
        const float x = float(i8(keys[(pair * PAGE_LEN + slot) * 2 + odd])) * scale;
        most[odd] = fmaxf(most[odd], x);
        least[odd] = fminf(least[odd], x);
      }
    }
    float steps[2], middles[2];
    for (u32 odd = 0; odd < 2; ++odd) {
      most[odd] = warp_max(most[odd]);
      least[odd] = -warp_max(-least[odd]);
      const u16 middle = float_to_half((most[odd] + least[odd]) * 0.5f);
      middles[odd] = half_to_float(middle);
      const float reach = fmaxf(most[odd] - middles[odd], middles[odd] - least[odd]);
      u16 step = float_to_half(reach * (1.0f / 15));
      if (half_to_float(step) * 15 < reach) step += 1;
      steps[odd] = half_to_float(step);
      if (lane_idx() == 0) {
        u16* channels = reinterpret_cast<u16*>(to + kPart / 2);
        channels[2 * pair + odd] = step;
        channels[HEAD_DIM + 2 * pair + odd] = middle;
      }
    }
    for (u32 slot = lane_idx(); slot < PAGE_LEN; slot += kWarp) {
      const float scale = half_to_float(scales[2 * pair / kKeyGroup * PAGE_LEN + slot]);
      u32 byte = 0;
      for (u32 odd = 0; odd < 2; ++odd) {
        const float x = float(i8(keys[(pair * PAGE_LEN + slot) * 2 + odd])) * scale - middles[odd];
        const float n = steps[odd] > 0 ? rintf(x / (2 * steps[odd]) + 7.5f) : 8;
        byte |= u32(fminf(fmaxf(n, 0), 15)) << (4 * odd);
      }
      to[pair * PAGE_LEN + slot] = u8(byte);
    }
  }
  for (u32 pair = warp_idx(); pair < PAGE_LEN / 2; pair += 8) {
    float inverses[2];
    for (u32 odd = 0; odd < 2; ++odd) {
      float most = 0;
      for (u32 dim = lane_idx(); dim < HEAD_DIM; dim += kWarp) {
        most = fmaxf(most, fabsf(float(i8(values[(pair * HEAD_DIM + dim) * 2 + odd]))));
      }
      most = warp_max(most);
      inverses[odd] = most > 0 ? 7.5f / most : 0;
      if (lane_idx() == 0) {
        reinterpret_cast<float*>(to_values + kPart / 2)[2 * pair + odd] =
            most * value_scales[2 * pair + odd] * (1.0f / 15);
      }
    }
    for (u32 dim = lane_idx(); dim < HEAD_DIM; dim += kWarp) {
      u32 byte = 0;
      for (u32 odd = 0; odd < 2; ++odd) {
        const float n =
            rintf(float(i8(values[(pair * HEAD_DIM + dim) * 2 + odd])) * inverses[odd] + 7.5f);
        byte |= u32(fminf(fmaxf(n, 0), 15)) << (4 * odd);
      }
      to_values[pair * HEAD_DIM + dim] = u8(byte);
    }
  }
}
