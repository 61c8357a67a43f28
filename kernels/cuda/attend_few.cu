// How do few queries attend to many pages (decoding)? Every byte of a page is read once, straight
// into the registers in which the tensor cores take it: keys lie as pairs of dimensions, values as
// pairs of tokens, 16 consecutive bytes of which are what one lane holds of eight tiles, if the
// columns of the tiles are numbered for it. So there is no shared memory to fill and no barrier; a
// warp takes some of the pages by itself (flash-decoding), and a second kernel merges what all
// found by the logarithms of their sums.
//
// The 16 rows of a tile are query tokens times the query heads that share the KV head, so that
// heads of a group read the page together.
//
//   floor: the bytes of the pages, once       work: 4 HEAD_DIM FLOPs a row and key, on tensor cores
#include "attention.cuh"

constexpr u32 kWarps = 4;
// Values' scales times this, so that small weights of small values are no subnormal halves.
constexpr float kLift = 256.0f;

// A query's elements `dim` and the next, which are not rotated apart, turned back by a page's
// place.
__device__ __forceinline__ float2 turned(const float* row, u32 dim, const float* place) {
  const float2 x = *reinterpret_cast<const float2*>(row + dim);
  if (dim >= 2 * N_PAIRS) return x;
  const bool is_first = dim < N_PAIRS;
  const u32 pair = is_first ? dim : dim - N_PAIRS;
  const float* partner = row + (is_first ? dim + N_PAIRS : pair);
  const float sign = is_first ? 1.0f : -1.0f;
  return make_float2(x.x * place[pair] + sign * partner[0] * place[N_PAIRS + pair],
                     x.y * place[pair + 1] + sign * partner[1] * place[N_PAIRS + pair + 1]);
}

constexpr u32 kQueryStride = HEAD_DIM + 4;  // so that rows are in other banks

// The queries of a step of 16 dimensions as the tensor cores take them, and for int4 keys what
// their channels' middles add to all scores of a row.
template <u32 TYPE>
__device__ __forceinline__ void query_step(const float* rows, const float* place, u32 step,
                                           const u8* keys, u32 (&a)[4], float (&middle)[2]) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  UNROLL
  for (u32 half = 0; half < 2; ++half) {
    const u32 dim = step * 16 + half * 8 + 2 * t;
    float2 steps = make_float2(1, 1), shifts = make_float2(0, 0);
    if constexpr (TYPE == kInt4) channel_steps(keys, dim, steps, shifts);
    UNROLL
    for (u32 r = 0; r < 2; ++r) {
      const float2 q = turned(rows + (g + 8 * r) * kQueryStride, dim, place);
      a[2 * half + r] = floats_to_halves(q.x * steps.x, q.y * steps.y);
      if (TYPE == kInt4) middle[r] += q.x * shifts.x + q.y * shifts.y;
    }
  }
}

// Consecutive words, by as few loads as they take.
template <u32 N>
__device__ __forceinline__ void load_words(const u8* at, u32* words) {
  if constexpr (N == 4) {
    const uint4 four = load_16(at);
    words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
  } else if constexpr (N == 2) {
    const uint2 two = *reinterpret_cast<const uint2*>(at);
    words[0] = two.x, words[1] = two.y;
  } else {
    words[0] = *reinterpret_cast<const u32*>(at);
  }
}

// The values of DIMS dimensions a lane, from `dim` on, of tokens 2 `pair` and 2 `pair` + 1.
template <u32 TYPE, u32 DIMS>
__device__ __forceinline__ void load_values(const u8* values, u32 pair, u32 dim, u32 n_keys,
                                            u32 (&words)[DIMS]) {
  const u32 at = dim + DIMS * (lane_idx() / 4);
  if constexpr (TYPE == kF16) {
    UNROLL
    for (u32 odd = 0; odd < 2; ++odd) {
      u32* half = words + odd * (DIMS / 2);
      load_words<DIMS / 2>(values + ((2 * pair + odd) * HEAD_DIM + at) * 2, half);
      // Where no key is there may be anything, a NaN too, which no weight of zero removes.
      UNROLL
      for (u32 i = 0; i < DIMS / 2; ++i) half[i] = 2 * pair + odd < n_keys ? half[i] : 0;
    }
  } else if constexpr (TYPE == kInt8) {
    load_words<DIMS / 2>(values + (pair * HEAD_DIM + at) * 2, words);
  } else if constexpr (DIMS >= 4) {
    load_words<DIMS / 4>(values + pair * HEAD_DIM + at, words);
  } else {
    words[0] = *reinterpret_cast<const u16*>(values + pair * HEAD_DIM + at);
  }
}

// The values of a lane's dimension `d` as the tensor cores take them: of the even tokens of two
// pairs, and of the odd ones.
template <u32 TYPE, u32 DIMS>
__device__ __forceinline__ void value_tile(const u32 (&first)[DIMS], const u32 (&second)[DIMS],
                                           u32 d, u32 (&b)[2]) {
  if constexpr (TYPE == kF16) {
    const u32 selector = d % 2 == 0 ? 0x5410 : 0x7632;
    b[0] = permute(first[d / 2], second[d / 2], selector);
    b[1] = permute(first[DIMS / 2 + d / 2], second[DIMS / 2 + d / 2], selector);
  } else if constexpr (TYPE == kInt8) {
    const u32 selector = d % 2 == 0 ? 0x5140 : 0x7362;
    widen_bytes(permute(first[d / 2], second[d / 2], selector), b[0], b[1]);
  } else {
    const u32 both = byte_of(first[d / 4], d % 4) | byte_of(second[d / 4], d % 4) << 16;
    b[0] = widen_nibbles(both & 0x000f000fu);
    b[1] = widen_nibbles(both >> 4 & 0x000f000fu);
  }
}

// Adds the values of DIMS dimensions a lane, from `dim` on, times their weights.
template <u32 TYPE, u32 DIMS>
__device__ __forceinline__ void add_values(const u8* values, u32 first_key, u32 n_keys, u32 dim,
                                           const u32 (&weights)[4][4], float (*out)[4]) {
  UNROLL
  for (u32 s = 0; s < 4; ++s) {
    const u32 pair = first_key / 2 + 8 * (lane_idx() % 4) + s;
    u32 first[DIMS], second[DIMS];
    load_values<TYPE, DIMS>(values, pair, dim, n_keys, first);
    load_values<TYPE, DIMS>(values, pair + 4, dim, n_keys, second);
    UNROLL
    for (u32 d = 0; d < DIMS; ++d) {
      u32 b[2];
      value_tile<TYPE, DIMS>(first, second, d, b);
      mma_half(out[d], weights[s], b);
    }
  }
}

template <u32 TYPE>
__device__ __forceinline__ void add_all_values(const u8* values, u32 first_key, u32 n_keys,
                                               const u32 (&weights)[4][4], Found& found) {
  constexpr u32 kWide = HEAD_DIM / 64 * 64;
  UNROLL
  for (u32 dim = 0; dim < kWide; dim += 64) {
    add_values<TYPE, 8>(values, first_key, n_keys, dim, weights, found.out + dim / 8);
  }
  if constexpr (HEAD_DIM % 64 >= 32) {
    add_values<TYPE, 4>(values, first_key, n_keys, kWide, weights, found.out + kWide / 8);
  }
  if constexpr (HEAD_DIM % 32 == 16) {
    constexpr u32 kLast = HEAD_DIM - 16;
    add_values<TYPE, 2>(values, first_key, n_keys, kLast, weights, found.out + kLast / 8);
  }
}

// One round: kKeys keys of a page, from `first_key` on.
template <u32 TYPE>
__device__ __forceinline__ void attend_keys(const AttendParams& p, const Page& page, const u8* keys,
                                            u32 first_key, const float* queries, const Rows& rows,
                                            Found& found, float (&page_sum)[2],
                                            float (&page_most)[2]) {
  const u32 t = lane_idx() % 4;
  const float* place = p.placements + u64(page.placement) * 2 * N_PAIRS;
  float scores[8][4] = {};
  float middle[2] = {0, 0};
  UNROLL_STEPS
  for (u32 step = 0; step < kSteps; ++step) {
    u32 a[4], b[8][2];
    query_step<TYPE>(queries, place, step, keys, a, middle);
    key_step<TYPE>(keys, step, first_key, b);
    UNROLL
    for (u32 j = 0; j < 8; ++j) mma_half(scores[j], a, b[j]);
  }
  if constexpr (TYPE == kInt4) {
    UNROLL
    for (u32 r = 0; r < 2; ++r) {
      middle[r] += shuffle_xor(middle[r], 1);
      middle[r] += shuffle_xor(middle[r], 2);
    }
  }
  weigh(p.scale, page, first_key, rows, middle, scores, found, page_sum, page_most);
  const u8* values = keys + key_bytes(TYPE);
  float middles[2] = {0, 0};  // int4: what to add, since nibbles less 8 are not around zero
  const u8* scales = values + (TYPE == kInt8 ? kPart : kPart / 2);
  UNROLL
  for (u32 odd = 0; odd < 2; ++odd) {
    const u32 first = first_key + 16 * t + 8 * odd;
    UNROLL
    for (u32 j = 0; j < 8; ++j) {
      float scale = kLift;
      if constexpr (TYPE != kF16) {
        // A page that is not full has numbers of no meaning where no keys are.
        const bool is_key = first + j < page.n_keys;
        const float step = reinterpret_cast<const float*>(scales)[first + j];
        scale = is_key ? step * kLift * (TYPE == kInt4 ? 2 : 1) : 0;
      }
      UNROLL
      for (u32 r = 0; r < 2; ++r) {
        scores[j][2 * r + odd] *= scale;
        middles[r] += scores[j][2 * r + odd];
      }
    }
  }
  u32 weights[4][4];
  as_operands(scores, weights);
  add_all_values<TYPE>(values, first_key, page.n_keys, weights, found);
  if (TYPE == kInt4) {
    UNROLL
    for (u32 r = 0; r < 2; ++r) {
      middles[r] += shuffle_xor(middles[r], 1);
      middles[r] += shuffle_xor(middles[r], 2);
      UNROLL
      for (u32 i = 0; i < kOutTiles; ++i) {
        found.out[i][2 * r] += 0.5f * middles[r];
        found.out[i][2 * r + 1] += 0.5f * middles[r];
      }
    }
  }
}

template <u32 TYPE>
__device__ __forceinline__ void attend_page(const AttendParams& p, const Page& page, u32 kv_head,
                                            const float* queries, const Rows& rows, Found& found,
                                            float* page_sums) {
  const u8* keys = page.layer + u64(kv_head) * head_bytes(TYPE);
  float sum[2] = {0, 0}, most[2] = {kNone, kNone};
  for (u32 first_key = 0; first_key < PAGE_LEN && first_key < page.n_keys; first_key += kKeys) {
    attend_keys<TYPE>(p, page, keys, first_key, queries, rows, found, sum, most);
  }
  if (page_sums) write_page_sum(sum, most, page_sums);
}

// Reads the tile's queries and rotates them to their places: [row][HEAD_DIM], zeros where there is
// none.
__device__ __forceinline__ void load_queries(const AttendParams& p, const Sequence& sequence,
                                             u32 tile, u32 kv_head, float* queries) {
  for (u32 i = threadIdx.x; i < kRows * HEAD_DIM; i += kWarps * kWarp) {
    const u32 row = i / HEAD_DIM, dim = i % HEAD_DIM;
    const RowPlace place = row_place(sequence, p.group, tile, kv_head, row);
    float x = 0;
    if (place.is_there) {
      const u64 token = sequence.first_row + place.token;
      const float* query = p.queries + (token * p.n_kv_heads * p.group + place.head) * HEAD_DIM;
      x = rotated(query, dim, p.near + token * 2 * N_PAIRS);
    }
    queries[row * kQueryStride + dim] = x;
  }
}

// Blocks: [tile][kv_head][groups of kWarps splits].
KERNEL(attend_few, AttendParams, kWarps* kWarp) {
  SHARED(float, queries, kRows* kQueryStride);
  const u32 tile = blockIdx.z, kv_head = blockIdx.y;
  const u32 n_splits = gridDim.x * kWarps, split = blockIdx.x * kWarps + warp_idx();
  const Sequence sequence = p.sequences[p.tiles[tile]];
  load_queries(p, sequence, tile, kv_head, queries);
  __syncthreads();

  Rows rows;
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    const RowPlace place = row_place(sequence, p.group, tile, kv_head, lane_idx() / 4 + 8 * r);
    rows.index[r] = sequence.first_index + place.token;
    rows.is_there[r] = place.is_there;
  }
  Found found = {};
  found.most[0] = found.most[1] = kNone;
  const u32 set = sequence.n_sets == 1 ? 0 : kv_head;
  const Page* pages = p.pages + sequence.first_page + set * sequence.n_pages;
  const u64 slot = u64(tile) * p.n_kv_heads + kv_head;
  const u32 first = u32(u64(sequence.n_pages) * split / n_splits);
  const u32 end = u32(u64(sequence.n_pages) * (split + 1) / n_splits);
  for (u32 i = first; i < end; ++i) {
    const Page page = pages[i];
    float* sums = p.page_sums ? p.page_sums + (slot * p.most_pages + i) * kRows : nullptr;
    if ((KV_TYPES >> kInt8 & 1) && page.kv_type == kInt8) {
      attend_page<kInt8>(p, page, kv_head, queries, rows, found, sums);
    } else if ((KV_TYPES >> kF16 & 1) && page.kv_type == kF16) {
      attend_page<kF16>(p, page, kv_head, queries, rows, found, sums);
    } else if ((KV_TYPES >> kInt4 & 1) && page.kv_type == kInt4) {
      attend_page<kInt4>(p, page, kv_head, queries, rows, found, sums);
    }
  }

  float* part = p.parts + (slot * n_splits + split) * kRows * HEAD_DIM;
  float* stats = p.stats + (slot * n_splits + split) * 2 * kRows;
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    found.sum[r] += shuffle_xor(found.sum[r], 1);
    found.sum[r] += shuffle_xor(found.sum[r], 2);
    if (lane_idx() % 4 == 0) {
      stats[lane_idx() / 4 + 8 * r] = found.most[r];
      stats[kRows + lane_idx() / 4 + 8 * r] = found.sum[r];
    }
  }
  write_all(found, 1 / kLift, part);
}

struct MergeParams {
  const float* parts;  // as of AttendParams
  const float* stats;
  const Sequence* sequences;
  const u32* tiles;
  float* out;       // [row][head][HEAD_DIM]
  float* row_sums;  // [tile][kv_head][16]: log2 of the sum of exp2 of all scores
  u32 n_kv_heads;
  u32 group;
  u32 n_splits;
  u32 padding;
};

// Blocks: [tile][kv_head][16], a row of a tile each.
KERNEL(merge_parts, MergeParams, 2 * kWarp) {
  const u32 tile = blockIdx.z, kv_head = blockIdx.y, row = blockIdx.x;
  const Sequence sequence = p.sequences[p.tiles[tile]];
  const RowPlace place = row_place(sequence, p.group, tile, kv_head, row);
  if (!place.is_there) return;
  const u64 slot = u64(tile) * p.n_kv_heads + kv_head;
  const float* stats = p.stats + slot * p.n_splits * 2 * kRows + row;
  float most = kNone;
  for (u32 split = 0; split < p.n_splits; ++split) {
    const float of_split = stats[split * 2 * kRows];
    most = of_split > most ? of_split : most;
  }
  float sum = 0;
  for (u32 split = 0; split < p.n_splits; ++split) {
    const float* of_split = stats + split * 2 * kRows;
    if (of_split[kRows] > 0) sum += of_split[kRows] * fast_exp2(of_split[0] - most);
  }
  if (threadIdx.x == 0) p.row_sums[slot * kRows + row] = sum > 0 ? most + fast_log2(sum) : kNone;
  const u64 token = sequence.first_row + place.token;
  float* out = p.out + (token * p.n_kv_heads * p.group + place.head) * HEAD_DIM;
  for (u32 dim = threadIdx.x; dim < HEAD_DIM; dim += 2 * kWarp) {
    float x = 0;
    for (u32 split = 0; split < p.n_splits; ++split) {
      const float* of_split = stats + split * 2 * kRows;
      if (of_split[kRows] > 0) {
        const u64 part = ((slot * p.n_splits + split) * kRows + row) * HEAD_DIM + dim;
        x += p.parts[part] * fast_exp2(of_split[0] - most);
      }
    }
    out[dim] = sum > 0 ? x / sum : 0;  // a query that sees no key gets nothing
  }
}
