// What do both kernels of attention share? Sequences and the rows of their tiles, the online
// softmax (Milakov and Gimelshein, arXiv 1805.02867), and how a warp holds what it has found.
#pragma once
#include "tiles.cuh"

constexpr u32 kOutTiles = HEAD_DIM / 8;

struct Sequence {
  u32 first_row;  // of the queries
  u32 n_tokens;
  u32 first_index;  // of the text, of the first query
  u32 first_page;   // in the table of pages: [set][page]
  u32 n_pages;      // of a set
  u32 n_sets;       // 1, or one a KV head
  u32 first_tile;   // among those of all sequences
  u32 padding;
};

struct AttendParams {
  const float* queries;     // [row][head][HEAD_DIM], not rotated
  const float* near;        // [row][2][N_PAIRS]: cosines and sines of the queries' places
  const float* placements;  // [placement][2][N_PAIRS]
  const Page* pages;
  const Sequence* sequences;
  const u32* tiles;  // [tile]: its sequence
  float* parts;      // [tile][kv_head][split][16][HEAD_DIM]
  float* stats;      // [tile][kv_head][split][2][16]: largest score, sum of the weights
  float* page_sums;  // [tile][kv_head][page][16]: log2 of the sum of exp2 of scores, or none
  u32 n_kv_heads;
  u32 group;       // query heads of a KV head
  u32 most_pages;  // of any sequence
  float scale;     // on scores, times log2(e)
};

// What a warp has found so far. Lane `l` has rows g = l / 4 and g + 8 of each tile's columns 2 (l %
// 4) and the next one.
struct Found {
  float out[kOutTiles][4];
  float most[2];
  float sum[2];  // the lane's own share
};

// Which token and query head a row of a tile is, of those that a sequence has.
struct RowPlace {
  u32 token, head;
  bool is_there;
};
__device__ __forceinline__ RowPlace row_place(const Sequence& sequence, u32 group, u32 tile,
                                              u32 kv_head, u32 row) {
  const u32 i = (tile - sequence.first_tile) * kRows + row;
  const u32 token = i / group;
  return {token, kv_head * group + i % group, token < sequence.n_tokens};
}

// Where the queries of the lane's two rows stand; keys after them are not seen.
struct Rows {
  u32 index[2];
  bool is_there[2];
};

// Turns the scores of a round into weights: what is not seen gets none, what was found before
// shrinks to the largest score so far. `middle` is added to all scores of a row.
__device__ __forceinline__ void weigh(float scale, const Page& page, u32 first_key,
                                      const Rows& rows, const float (&middle)[2],
                                      float (&scores)[8][4], Found& found, float (&page_sum)[2],
                                      float (&page_most)[2]) {
  const u32 t = lane_idx() % 4;
  float most[2] = {found.most[0], found.most[1]};
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    UNROLL
    for (u32 j = 0; j < 8; ++j) {
      UNROLL
      for (u32 odd = 0; odd < 2; ++odd) {
        const u32 key = first_key + 16 * t + 8 * odd + j;
        const bool is_seen =
            rows.is_there[r] && key < page.n_keys && page.first_index + key <= rows.index[r];
        float& score = scores[j][2 * r + odd];
        score = is_seen ? (score + middle[r]) * scale : kNone;
        most[r] = score > most[r] ? score : most[r];
      }
    }
    UNROLL
    for (u32 step = 1; step < 4; step *= 2) {
      const float other = shuffle_xor(most[r], step);
      most[r] = other > most[r] ? other : most[r];
    }
    const float base = most[r] == kNone ? 0 : most[r];
    const float shrink = fast_exp2(found.most[r] - base);
    const float page_shrink = fast_exp2(page_most[r] - base);
    float sum = 0;
    UNROLL
    for (u32 j = 0; j < 8; ++j) {
      UNROLL
      for (u32 odd = 0; odd < 2; ++odd) {
        float& score = scores[j][2 * r + odd];
        score = fast_exp2(score - base);
        sum += score;
      }
    }
    found.most[r] = page_most[r] = most[r];
    found.sum[r] = found.sum[r] * shrink + sum;
    page_sum[r] = page_sum[r] * page_shrink + sum;
    UNROLL
    for (u32 i = 0; i < kOutTiles; ++i) {
      found.out[i][2 * r] *= shrink;
      found.out[i][2 * r + 1] *= shrink;
    }
  }
}

// Weights as the tensor cores take them.
__device__ __forceinline__ void as_operands(const float (&scores)[8][4], u32 (&weights)[4][4]) {
  UNROLL
  for (u32 s = 0; s < 4; ++s) {
    UNROLL
    for (u32 half = 0; half < 2; ++half) {
      const float (&of)[4] = scores[2 * s + half];
      weights[s][2 * half] = floats_to_halves(of[0], of[1]);
      weights[s][2 * half + 1] = floats_to_halves(of[2], of[3]);
    }
  }
}

// The logarithm of a page's sum, of the lane's two rows, to `page_sums` [16].
__device__ __forceinline__ void write_page_sum(const float (&sum)[2], const float (&most)[2],
                                               float* page_sums) {
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    float all = sum[r] + shuffle_xor(sum[r], 1);
    all += shuffle_xor(all, 2);
    if (lane_idx() % 4 == 0) {
      page_sums[lane_idx() / 4 + 8 * r] = all > 0 ? most[r] + fast_log2(all) : kNone;
    }
  }
}

// Writes what a warp has found. Columns of tiles are dimensions in the order in which values were
// loaded.
template <u32 DIMS>
__device__ __forceinline__ void write_dims(const float (*out)[4], u32 dim, float factor,
                                           float* part) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  UNROLL
  for (u32 d = 0; d < DIMS; ++d) {
    UNROLL
    for (u32 i = 0; i < 4; ++i) {
      part[(g + i / 2 * 8) * HEAD_DIM + dim + DIMS * (2 * t + i % 2) + d] = out[d][i] * factor;
    }
  }
}

__device__ __forceinline__ void write_all(const Found& found, float factor, float* part) {
  constexpr u32 kWide = HEAD_DIM / 64 * 64;
  UNROLL
  for (u32 dim = 0; dim < kWide; dim += 64) write_dims<8>(found.out + dim / 8, dim, factor, part);
  if constexpr (HEAD_DIM % 64 >= 32) write_dims<4>(found.out + kWide / 8, kWide, factor, part);
  if constexpr (HEAD_DIM % 32 == 16) {
    write_dims<2>(found.out + HEAD_DIM / 8 - 2, HEAD_DIM - 16, factor, part);
  }
}

struct MassParams {
  const float* page_sums;  // [tile][kv_head][page][16]
  const float* row_sums;   // [tile][kv_head][16]
  const Sequence* sequences;
  float* masses;  // [page of the table]: squares of the softmax mass, summed over rows
  u32 n_kv_heads;
  u32 group;
  u32 most_pages;
  u32 padding;
};

// Blocks: [sequence][set][pages, a thread each].
KERNEL(page_masses, MassParams, 4 * kWarp) {
  const Sequence sequence = p.sequences[blockIdx.z];
  const u32 set = blockIdx.y, page = blockIdx.x * 4 * kWarp + threadIdx.x;
  if (set >= sequence.n_sets || page >= sequence.n_pages) return;
  const u32 n_rows = sequence.n_tokens * p.group;
  const u32 heads_a_set = p.n_kv_heads / sequence.n_sets;
  float mass = 0;
  for (u32 kv_head = set * heads_a_set; kv_head < (set + 1) * heads_a_set; ++kv_head) {
    for (u32 i = 0; i < n_rows; ++i) {
      const u64 slot = u64(sequence.first_tile + i / kRows) * p.n_kv_heads + kv_head;
      const float of_page = p.page_sums[(slot * p.most_pages + page) * kRows + i % kRows];
      const float share = fast_exp2(of_page - p.row_sums[slot * kRows + i % kRows]);
      mass += of_page == kNone ? 0 : share * share;
    }
  }
  p.masses[sequence.first_page + set * sequence.n_pages + page] = mass;
}
