// How do many queries attend to pages (reading)? As FlashAttention-2 does (arXiv 2307.08691), over
// pages: a block of eight warps has 128 rows, each warp 16 of them with its own running softmax,
// and all share a round's keys and values. While the tensor cores work on one round the bytes of
// the next are copied (cp.async) as they lie in the page; then the block makes halves of them once
// for all rows, keys rotated to the page's place, so that queries are rotated once, to their own.
//
//   floor: 4 HEAD_DIM FLOPs a row and key seen; the bytes of a page once for 128 rows
#include "attention.cuh"

constexpr u32 kWarps = 8;
constexpr u32 kThreads = kWarps * kWarp;
constexpr u32 kPairRows = HEAD_DIM / 2;
// Words of a row of values: so many that places in it can be mixed.
constexpr u32 kValueRow = (HEAD_DIM + 31) / 32 * 32;

// A round's bytes as they lie in a page: keys, their scales, values, their scales.
template <u32 TYPE>
struct Raw {
  static constexpr u32 kKeyRows = TYPE == kF16 ? HEAD_DIM : HEAD_DIM / 2;
  static constexpr u32 kKeyRow = TYPE == kInt4 ? kKeys : 2 * kKeys;  // bytes
  static constexpr u32 kKeyBytes = kKeyRows * kKeyRow;
  static constexpr u32 kScaleRows = TYPE == kInt8 ? HEAD_DIM / kKeyGroup : 0;
  static constexpr u32 kScaleBytes = TYPE == kInt8   ? kScaleRows * 2 * kKeys
                                     : TYPE == kInt4 ? 4 * HEAD_DIM
                                                     : 0;
  static constexpr u32 kValueBytes =
      kKeys * HEAD_DIM * (TYPE == kF16 ? 2 : 1) / (TYPE == kInt4 ? 2 : 1);
  static constexpr u32 kStepBytes = TYPE == kF16 ? 0 : 4 * kKeys;
  static constexpr u32 kScales = kKeyBytes, kValues = kScales + kScaleBytes,
                       kSteps = kValues + kValueBytes, kBytes = kSteps + kStepBytes;
};
__device__ constexpr u32 bytes_if(u32 type, u32 bytes) { return KV_TYPES >> type & 1 ? bytes : 0; }
__device__ constexpr u32 larger(u32 a, u32 b) { return a > b ? a : b; }
constexpr u32 kRawBytes =
    larger(bytes_if(kF16, Raw<kF16>::kBytes),
           larger(bytes_if(kInt8, Raw<kInt8>::kBytes), bytes_if(kInt4, Raw<kInt4>::kBytes)));
constexpr u32 kKeyTile = 4 * kPairRows * kKeys, kValueTile = 4 * kKeys / 2 * kValueRow;
constexpr u32 kQueryBytes = kWarps * kSteps * kWarp * 16;
// The launcher asks for as much: raw bytes, keys, values, queries.
constexpr u32 kSharedBytes = kRawBytes + kKeyTile + kValueTile + kQueryBytes;

struct Block {
  u32 sequence;
  u32 first_tile;  // of up to kWarps
};

struct ManyParams {
  const float* queries;  // as of AttendParams
  const float* near;
  const float* placements;
  const Page* pages;
  const Sequence* sequences;
  const Block* blocks;
  float* out;        // [row][head][HEAD_DIM]
  float* row_sums;   // [tile][kv_head][16]: log2 of the sum of exp2 of all scores
  float* page_sums;  // [tile][kv_head][page][16]: the same of each page, or none
  u32 n_kv_heads;
  u32 group;
  u32 most_pages;
  u32 shared_bytes;  // that the launcher gave
  float scale;
  u32 padding;
};

// Where key `key` of a row of pairs is, and dimension `dim` of a row of two tokens: in words. Rows
// of neighbouring lanes are mixed so that eight lanes' loads of four words are in different banks.
__device__ __forceinline__ u32 mixed(u32 four, u32 row) {
  return four ^ ((row & 1) | (row & 2) << 1);
}
__device__ __forceinline__ u32 key_place(u32 pair, u32 key) {
  return pair * kKeys + mixed(key / 4, pair % 4) * 4 + key % 4;
}
__device__ __forceinline__ u32 value_place(u32 row, u32 dim) {
  return row * kValueRow + mixed(dim / 4, row / 8) * 4 + dim % 4;
}

// Copies rows of bytes, sixteen at a time by all threads.
__device__ __forceinline__ void copy_rows(u8* to, const u8* from, u32 n_rows, u32 row_bytes,
                                          u32 stride) {
  const u32 chunks = row_bytes / 16;
  for (u32 i = threadIdx.x; i < n_rows * chunks; i += kThreads) {
    const u32 row = i / chunks, at = i % chunks * 16;
    copy_async_16(to + row * row_bytes + at, from + u64(row) * stride + at);
  }
}

template <u32 TYPE>
__device__ __forceinline__ void copy_round(const u8* head, u32 first_key, u8* raw) {
  using R = Raw<TYPE>;
  const u32 of_key = R::kKeyRow / kKeys;
  copy_rows(raw, head + first_key * of_key, R::kKeyRows, R::kKeyRow, PAGE_LEN * of_key);
  const u8* scales = head + R::kKeyRows * PAGE_LEN * of_key;
  if constexpr (TYPE == kInt8) {
    copy_rows(raw + R::kScales, scales + 2 * first_key, R::kScaleRows, 2 * kKeys, 2 * PAGE_LEN);
  } else if constexpr (TYPE == kInt4) {
    copy_rows(raw + R::kScales, scales, 1, R::kScaleBytes, 0);
  }
  const u8* values = head + key_bytes(TYPE);
  copy_rows(raw + R::kValues, values + u64(first_key) * (R::kValueBytes / kKeys), 1, R::kValueBytes,
            0);
  if constexpr (TYPE != kF16) {
    const u8* steps = values + kPart / (TYPE == kInt4 ? 2 : 1);
    copy_rows(raw + R::kSteps, steps + 4 * first_key, 1, R::kStepBytes, 0);
  }
}

// A key's dimensions 2 `pair` and the next.
template <u32 TYPE>
__device__ __forceinline__ float2 key_pair(const u8* raw, u32 pair, u32 key) {
  if constexpr (TYPE == kF16) {
    const u16* keys = reinterpret_cast<const u16*>(raw);
    return make_float2(half_to_float(keys[2 * pair * kKeys + key]),
                       half_to_float(keys[(2 * pair + 1) * kKeys + key]));
  } else if constexpr (TYPE == kInt8) {
    const u32 bytes = reinterpret_cast<const u16*>(raw)[pair * kKeys + key];
    const u16* scales = reinterpret_cast<const u16*>(raw + Raw<kInt8>::kScales);
    const float scale = half_to_float(scales[pair / (kKeyGroup / 2) * kKeys + key]);
    return make_float2(float(i8(bytes)) * scale, float(i8(bytes >> 8)) * scale);
  } else {
    const u32 byte = raw[pair * kKeys + key];
    const u32* channels = reinterpret_cast<const u32*>(raw + Raw<kInt4>::kScales);
    const float2 step = halves_to_floats(channels[pair]);
    const float2 middle = halves_to_floats(channels[HEAD_DIM / 2 + pair]);
    return make_float2(middle.x + step.x * float(2 * int(byte & 15) - 15),
                       middle.y + step.y * float(2 * int(byte >> 4) - 15));
  }
}

template <u32 TYPE>
__device__ __forceinline__ float value_of(const u8* raw, u32 key, u32 dim) {
  const u8* values = raw + Raw<TYPE>::kValues;
  if constexpr (TYPE == kF16) {
    return half_to_float(reinterpret_cast<const u16*>(values)[key * HEAD_DIM + dim]);
  } else {
    const float step = reinterpret_cast<const float*>(raw + Raw<TYPE>::kSteps)[key];
    if constexpr (TYPE == kInt8) {
      return float(i8(values[(key / 2 * HEAD_DIM + dim) * 2 + key % 2])) * step;
    } else {
      const u32 nibble = values[key / 2 * HEAD_DIM + dim] >> (key % 2 * 4) & 15;
      return float(2 * int(nibble) - 15) * step;
    }
  }
}

// Makes halves of a round's bytes: keys turned to the page's place, values of keys that are there.
template <u32 TYPE>
__device__ __forceinline__ void widen_round(const u8* raw, const float* place, u32 n_keys,
                                            u32* keys, u32* values) {
  for (u32 i = threadIdx.x; i < N_PAIRS / 2 * kKeys; i += kThreads) {
    const u32 pair = i / kKeys, key = i % kKeys;  // dimensions 2 pair.., and those N_PAIRS further
    const float2 x = key_pair<TYPE>(raw, pair, key),
                 y = key_pair<TYPE>(raw, pair + N_PAIRS / 2, key);
    const float2 cosines = *reinterpret_cast<const float2*>(place + 2 * pair);
    const float2 sines = *reinterpret_cast<const float2*>(place + N_PAIRS + 2 * pair);
    keys[key_place(pair, key)] =
        floats_to_halves(x.x * cosines.x - y.x * sines.x, x.y * cosines.y - y.y * sines.y);
    keys[key_place(pair + N_PAIRS / 2, key)] =
        floats_to_halves(x.x * sines.x + y.x * cosines.x, x.y * sines.y + y.y * cosines.y);
  }
  for (u32 i = threadIdx.x; i < (kPairRows - N_PAIRS) * kKeys; i += kThreads) {
    const u32 pair = N_PAIRS + i / kKeys, key = i % kKeys;
    const float2 x = key_pair<TYPE>(raw, pair, key);
    keys[key_place(pair, key)] = floats_to_halves(x.x, x.y);
  }
  // Row 8 t' + s' holds tokens 16 t' + s' and eight further, which the tensor cores take together.
  for (u32 i = threadIdx.x; i < kKeys / 2 * HEAD_DIM; i += kThreads) {
    const u32 row = i / HEAD_DIM, dim = i % HEAD_DIM;
    const u32 key = row / 8 * 16 + row % 8;
    const float first = key < n_keys ? value_of<TYPE>(raw, key, dim) : 0;
    const float second = key + 8 < n_keys ? value_of<TYPE>(raw, key + 8, dim) : 0;
    values[value_place(row, dim)] = floats_to_halves(first, second);
  }
}

// Words of a lane's columns, DIMS of them side by side.
template <u32 DIMS>
__device__ __forceinline__ void add_tile_values(const u32* values, u32 dim,
                                                const u32 (&weights)[4][4], float (*out)[4]) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  UNROLL
  for (u32 s = 0; s < 4; ++s) {
    u32 b[DIMS][2];
    UNROLL
    for (u32 odd = 0; odd < 2; ++odd) {
      UNROLL
      for (u32 d = 0; d < DIMS; d += DIMS < 4 ? DIMS : 4) {
        const u32* at = values + value_place(8 * t + 2 * s + odd, dim + DIMS * g + d);
        if constexpr (DIMS >= 4) {
          const uint4 four = *reinterpret_cast<const uint4*>(at);
          b[d][odd] = four.x, b[d + 1][odd] = four.y, b[d + 2][odd] = four.z,
          b[d + 3][odd] = four.w;
        } else {
          const uint2 two = *reinterpret_cast<const uint2*>(at);
          b[d][odd] = two.x, b[d + 1][odd] = two.y;
        }
      }
    }
    UNROLL
    for (u32 d = 0; d < DIMS; ++d) mma_half(out[d], weights[s], b[d]);
  }
}

// A warp's part of a round.
__device__ __forceinline__ void attend_round(const ManyParams& p, const Page& page, u32 first_key,
                                             const Rows& rows, const uint4* queries,
                                             const u32* keys, const u32* values, Found& found,
                                             float (&page_sum)[2], float (&page_most)[2]) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  float scores[8][4] = {};
  UNROLL_STEPS
  for (u32 step = 0; step < kSteps; ++step) {
    const uint4 query = queries[step * kWarp + lane_idx()];
    const u32 a[4] = {query.x, query.y, query.z, query.w};
    u32 b[8][2];
    UNROLL
    for (u32 half = 0; half < 2; ++half) {
      UNROLL
      for (u32 j = 0; j < 8; j += 4) {
        const u32* at = keys + key_place(step * 8 + half * 4 + t, 8 * g + j);
        const uint4 four = *reinterpret_cast<const uint4*>(at);
        b[j][half] = four.x, b[j + 1][half] = four.y;
        b[j + 2][half] = four.z, b[j + 3][half] = four.w;
      }
    }
    UNROLL
    for (u32 j = 0; j < 8; ++j) mma_half(scores[j], a, b[j]);
  }
  const float middle[2] = {0, 0};
  weigh(p.scale, page, first_key, rows, middle, scores, found, page_sum, page_most);
  u32 weights[4][4];
  as_operands(scores, weights);
  constexpr u32 kWide = HEAD_DIM / 64 * 64;
  UNROLL
  for (u32 dim = 0; dim < kWide; dim += 64) {
    add_tile_values<8>(values, dim, weights, found.out + dim / 8);
  }
  if constexpr (HEAD_DIM % 64 >= 32)
    add_tile_values<4>(values, kWide, weights, found.out + kWide / 8);
  if constexpr (HEAD_DIM % 32 == 16) {
    add_tile_values<2>(values, HEAD_DIM - 16, weights, found.out + HEAD_DIM / 8 - 2);
  }
}

// The warp's queries, rotated to their places, as the tensor cores take them: [step][lane].
__device__ __forceinline__ void load_operands(const ManyParams& p, const Sequence& sequence,
                                              u32 tile, u32 kv_head, uint4* queries) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  for (u32 step = 0; step < kSteps; ++step) {
    u32 a[4];
    for (u32 i = 0; i < 4; ++i) {
      const RowPlace place = row_place(sequence, p.group, tile, kv_head, g + i % 2 * 8);
      float x[2] = {0, 0};
      for (u32 odd = 0; odd < 2 && place.is_there; ++odd) {
        const u32 dim = step * 16 + i / 2 * 8 + 2 * t + odd;
        const u64 token = sequence.first_row + place.token;
        const float* query = p.queries + (token * p.n_kv_heads * p.group + place.head) * HEAD_DIM;
        x[odd] = rotated(query, dim, p.near + token * 2 * N_PAIRS);
      }
      a[i] = floats_to_halves(x[0], x[1]);
    }
    queries[step * kWarp + lane_idx()] = make_uint4(a[0], a[1], a[2], a[3]);
  }
}

__device__ __forceinline__ void copy_any(const Page& page, u32 kv_head, u32 first_key, u8* raw) {
  const u8* head = page.layer + u64(kv_head) * head_bytes(page.kv_type);
  if ((KV_TYPES >> kInt8 & 1) && page.kv_type == kInt8) copy_round<kInt8>(head, first_key, raw);
  if ((KV_TYPES >> kF16 & 1) && page.kv_type == kF16) copy_round<kF16>(head, first_key, raw);
  if ((KV_TYPES >> kInt4 & 1) && page.kv_type == kInt4) copy_round<kInt4>(head, first_key, raw);
}

__device__ __forceinline__ void widen_any(const Page& page, const u8* raw, const float* place,
                                          u32 n_keys, u32* keys, u32* values) {
  if ((KV_TYPES >> kInt8 & 1) && page.kv_type == kInt8) {
    widen_round<kInt8>(raw, place, n_keys, keys, values);
  }
  if ((KV_TYPES >> kF16 & 1) && page.kv_type == kF16) {
    widen_round<kF16>(raw, place, n_keys, keys, values);
  }
  if ((KV_TYPES >> kInt4 & 1) && page.kv_type == kInt4) {
    widen_round<kInt4>(raw, place, n_keys, keys, values);
  }
}

// A round: 64 keys of a page, of those that any row of the block may see.
struct Round {
  u32 page, first_key;
};

// The first round from `at` on that some row of the block sees something of.
__device__ __forceinline__ Round seen_round(const Page* pages, u32 n_pages, u32 last_index,
                                            Round at) {
  while (at.page < n_pages) {
    const Page& page = pages[at.page];
    if (at.first_key < page.n_keys && page.first_index + at.first_key <= last_index) return at;
    at = {at.page + 1, 0};
  }
  return at;
}

// Writes one of a lane's two rows: columns of tiles are dimensions in the order in which values
// were loaded.
__device__ __forceinline__ void write_row(const Found& found, u32 r, float factor, float* out) {
  const u32 t = lane_idx() % 4;
  constexpr u32 kWide = HEAD_DIM / 64 * 64;
  UNROLL
  for (u32 tile = 0; tile < kOutTiles; ++tile) {
    // Tiles of 64 dimensions hold eight a column, those of the 32 and 16 after them four and two.
    const u32 dim = tile * 8;
    const u32 first = dim < kWide                               ? dim / 64 * 64
                      : HEAD_DIM % 64 >= 32 && dim < kWide + 32 ? kWide
                                                                : HEAD_DIM - 16;
    const u32 dims = dim < kWide ? 8 : HEAD_DIM % 64 >= 32 && dim < kWide + 32 ? 4 : 2;
    UNROLL
    for (u32 odd = 0; odd < 2; ++odd) {
      out[first + dims * (2 * t + odd) + (dim - first) / 8] = found.out[tile][2 * r + odd] * factor;
    }
  }
}

// Blocks: [block of tiles][kv_head].
KERNEL(attend_many, ManyParams, kThreads) {
  DYNAMIC_SHARED(shared);
  if (p.shared_bytes < kSharedBytes) __trap();  // the launcher and this file do not fit one another
  u8* raw = shared;
  u32* keys = reinterpret_cast<u32*>(shared + kRawBytes);
  u32* values = reinterpret_cast<u32*>(shared + kRawBytes + kKeyTile);
  uint4* queries = reinterpret_cast<uint4*>(shared + kRawBytes + kKeyTile + kValueTile) +
                   warp_idx() * kSteps * kWarp;
  const Block block = p.blocks[blockIdx.x];
  const u32 kv_head = blockIdx.y;
  const Sequence sequence = p.sequences[block.sequence];
  const u32 tile = block.first_tile + warp_idx();
  load_operands(p, sequence, tile, kv_head, queries);

  Rows rows;
  for (u32 r = 0; r < 2; ++r) {
    const RowPlace place = row_place(sequence, p.group, tile, kv_head, lane_idx() / 4 + 8 * r);
    rows.index[r] = sequence.first_index + place.token;
    rows.is_there[r] = place.is_there;
  }
  const u32 end_row = (block.first_tile - sequence.first_tile + kWarps) * kRows;
  const u32 end_token = (end_row + p.group - 1) / p.group;
  const u32 last_index =
      sequence.first_index + (end_token < sequence.n_tokens ? end_token : sequence.n_tokens) - 1;
  Found found = {};
  found.most[0] = found.most[1] = kNone;
  float page_sum[2] = {0, 0}, page_most[2] = {kNone, kNone};
  const u32 set = sequence.n_sets == 1 ? 0 : kv_head;
  const Page* pages = p.pages + sequence.first_page + set * sequence.n_pages;
  const u64 slot = u64(tile) * p.n_kv_heads + kv_head;
  const bool is_tile = (tile - sequence.first_tile) * kRows < sequence.n_tokens * p.group;

  Round round = seen_round(pages, sequence.n_pages, last_index, {0, 0});
  if (p.page_sums && is_tile) {  // pages that are not seen at all have no sum
    for (u32 i = lane_idx(); i < sequence.n_pages * kRows; i += kWarp) {
      p.page_sums[slot * p.most_pages * kRows + i] = kNone;
    }
    __syncwarp();
  }
  if (round.page < sequence.n_pages) copy_any(pages[round.page], kv_head, round.first_key, raw);
  copy_async_commit();
  while (round.page < sequence.n_pages) {
    const Page page = pages[round.page];
    copy_async_wait<0>();
    __syncthreads();
    const float* place = p.placements + u64(page.placement) * 2 * N_PAIRS;
    widen_any(page, raw, place, page.n_keys - round.first_key, keys, values);
    __syncthreads();
    const Round next =
        seen_round(pages, sequence.n_pages, last_index, {round.page, round.first_key + kKeys});
    if (next.page < sequence.n_pages) copy_any(pages[next.page], kv_head, next.first_key, raw);
    copy_async_commit();
    attend_round(p, page, round.first_key, rows, queries, keys, values, found, page_sum, page_most);
    if (p.page_sums && next.page != round.page) {
      if (is_tile) {
        write_page_sum(page_sum, page_most,
                       p.page_sums + (slot * p.most_pages + round.page) * kRows);
      }
      page_sum[0] = page_sum[1] = 0;
      page_most[0] = page_most[1] = kNone;
    }
    round = next;
  }

  if (!is_tile) return;
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    found.sum[r] += shuffle_xor(found.sum[r], 1);
    found.sum[r] += shuffle_xor(found.sum[r], 2);
    if (lane_idx() % 4 == 0) {
      p.row_sums[slot * kRows + lane_idx() / 4 + 8 * r] =
          found.sum[r] > 0 ? found.most[r] + fast_log2(found.sum[r]) : kNone;
    }
    const RowPlace place = row_place(sequence, p.group, tile, kv_head, lane_idx() / 4 + 8 * r);
    if (!place.is_there) continue;
    const u64 token = sequence.first_row + place.token;
    float* out = p.out + (token * p.n_kv_heads * p.group + place.head) * HEAD_DIM;
    write_row(found, r, found.sum[r] > 0 ? 1 / found.sum[r] : 0, out);
  }
}
