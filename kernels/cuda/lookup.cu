// Which units do queries ask for? The lookup's two stages without a way back to the host:
//
//   prepare_queries   means of groups of tokens, rotated to the lookup's distance
//   score_segments    coarse: every unit by its best segment, bytes against bytes (dp4a)
//   score_keys        fine: the candidates by their best keys, on tensor cores
//   share_rows        each row's largest score and sum of exponentials, over units
//   cast_votes        a unit's vote: of each head its best share over groups, summed over heads
//   choose_best       the units with the most votes, in the order of the text
//
//   floor: coarse HEAD_DIM + 4 bytes a segment and KV head, once for 8 rows;
//          fine the keys of the candidates
#include "tiles.cuh"

constexpr u32 kWarps = 4;
constexpr u32 kUnits = 16;      // side by side in a block of the index
constexpr u32 kCoarseRows = 8;  // that a warp scores at once
constexpr u32 kWords = HEAD_DIM / 4;

struct PrepareParams {
  const float* queries;         // [row][head][HEAD_DIM], not rotated
  const float* segment_angles;  // [2][N_PAIRS]: of segments' means, which are not rotated
  const float* key_angles;      // the same for pages' keys, which are, by half a page on average
  i8* bytes;                    // [kv_head][row][HEAD_DIM]
  float* byte_scales;           // [kv_head][row], with the attention's scale and log2(e)
  float* rows;                  // [kv_head][row][HEAD_DIM], with them as well
  u32 first_row;
  u32 n_tokens;
  u32 group_len;  // tokens that share a row
  u32 n_kv_heads;
  u32 group;  // query heads of a KV head
  float scale;
  float sharpness;  // factor on segments' scores, beside
  u32 padding;
};

// Blocks: [token group][kv_head * group + head], a warp each.
KERNEL(prepare_queries, PrepareParams, kWarp) {
  SHARED(float, mean, HEAD_DIM);
  const u32 token_group = blockIdx.x, head = blockIdx.y, n_heads = p.n_kv_heads * p.group;
  const u32 first = token_group * p.group_len;
  const u32 end = first + p.group_len < p.n_tokens ? first + p.group_len : p.n_tokens;
  for (u32 dim = lane_idx(); dim < HEAD_DIM; dim += kWarp) {
    float sum = 0;
    for (u32 token = first; token < end; ++token) {
      sum += p.queries[(u64(p.first_row + token) * n_heads + head) * HEAD_DIM + dim];
    }
    mean[dim] = sum * (p.scale / float(end - first));
  }
  __syncwarp();
  const u32 kv_head = head / p.group;
  const u64 row = u64(kv_head) * gridDim.x * p.group + token_group * p.group + head % p.group;
  float most = 0;
  for (u32 dim = lane_idx(); dim < HEAD_DIM; dim += kWarp) {
    p.rows[row * HEAD_DIM + dim] = rotated(mean, dim, p.key_angles);
    most = fmaxf(most, fabsf(rotated(mean, dim, p.segment_angles)));
  }
  most = warp_max(most);
  const float inverse = most > 0 ? 127 / most : 0;
  for (u32 dim = lane_idx(); dim < HEAD_DIM; dim += kWarp) {
    p.bytes[row * HEAD_DIM + dim] = i8(rintf(rotated(mean, dim, p.segment_angles) * inverse));
  }
  if (lane_idx() == 0) p.byte_scales[row] = most * (1.0f / 127) * p.sharpness;
}

struct SegmentParams {
  // [block], of each [kv_head]: means [segment][kWords][kUnits][4], each byte 128 more than the
  // value in units of its scale, then scales [segment][kUnits] f32
  const u8* const* blocks;
  const i8* bytes;  // as of PrepareParams
  const float* byte_scales;
  float* scores;  // [kv_head][row][unit]
  u32 n_units;
  u32 n_segments;  // of a unit
  u32 n_rows;
  u32 n_kv_heads;
};

// Blocks: [groups of kWarps blocks of units][kv_head][kCoarseRows rows]. A warp takes a block of
// units; half of its lanes take the even segments, half the odd ones.
KERNEL(score_segments, SegmentParams, kWarps* kWarp) {
  SHARED(uint4, queries, kWords / 4 * kCoarseRows);  // [four words][row]
  const u32 kv_head = blockIdx.y, first_row = blockIdx.z * kCoarseRows;
  for (u32 i = threadIdx.x; i < kWords / 4 * kCoarseRows; i += kWarps * kWarp) {
    const u32 row = first_row + i % kCoarseRows;
    const u64 at = u64(kv_head) * p.n_rows + (row < p.n_rows ? row : p.n_rows - 1);
    queries[i] = *reinterpret_cast<const uint4*>(p.bytes + at * HEAD_DIM + i / kCoarseRows * 16);
  }
  __syncthreads();
  const u32 block = blockIdx.x * kWarps + warp_idx();
  const bool is_block = block * kUnits < p.n_units;
  const u32 head_len = p.n_segments * kUnits * (HEAD_DIM + 4);
  const u8* head = p.blocks[is_block ? block : 0] + u64(kv_head) * head_len;
  const float* scales = reinterpret_cast<const float*>(head + p.n_segments * kUnits * HEAD_DIM);
  const u32 unit = lane_idx() % kUnits;
  float best[kCoarseRows];
  UNROLL
  for (u32 r = 0; r < kCoarseRows; ++r) best[r] = kNone;
  for (u32 segment = lane_idx() / kUnits; segment < p.n_segments; segment += 2) {
    const u32* means = reinterpret_cast<const u32*>(head) + segment * kWords * kUnits + unit;
    int sums[kCoarseRows] = {};
    for (u32 word = 0; word < kWords; word += 4) {
      u32 four[4];
      UNROLL
      for (u32 i = 0; i < 4; ++i) four[i] = means[(word + i) * kUnits] ^ 0x80808080u;
      UNROLL
      for (u32 r = 0; r < kCoarseRows; ++r) {
        const uint4 query = queries[word / 4 * kCoarseRows + r];
        UNROLL
        for (u32 i = 0; i < 4; ++i) sums[r] = dot4(int(four[i]), int(word_of(query, i)), sums[r]);
      }
    }
    const float scale = scales[segment * kUnits + unit];
    UNROLL
    for (u32 r = 0; r < kCoarseRows; ++r) best[r] = fmaxf(best[r], float(sums[r]) * scale);
  }
  UNROLL
  for (u32 r = 0; r < kCoarseRows; ++r) {
    const float score = fmaxf(best[r], shuffle_xor(best[r], kUnits));
    const u32 row = first_row + r, at = block * kUnits + unit;
    if (lane_idx() < kUnits && is_block && at < p.n_units && row < p.n_rows) {
      const u64 of_row = u64(kv_head) * p.n_rows + row;
      p.scores[of_row * p.n_units + at] = score * p.byte_scales[of_row];
    }
  }
}

struct KeyParams {
  const float* rows;      // as of PrepareParams
  const Page* units;      // [unit]
  const u32* candidates;  // [set][candidate]: units
  float* scores;          // [kv_head][row][candidate]
  u32 n_candidates;
  u32 n_sets;
  u32 n_rows;
  u32 n_kv_heads;
};

// The best key of a page for each of a lane's two rows.
template <u32 TYPE>
__device__ __forceinline__ void best_of_page(const Page& page, const u8* keys, const float* rows,
                                             float (&best)[2]) {
  const u32 g = lane_idx() / 4, t = lane_idx() % 4;
  for (u32 first_key = 0; first_key < PAGE_LEN && first_key < page.n_keys; first_key += kKeys) {
    float scores[8][4] = {};
    float middle[2] = {0, 0};
    UNROLL_STEPS
    for (u32 step = 0; step < kSteps; ++step) {
      u32 a[4], b[8][2];
      UNROLL
      for (u32 half = 0; half < 2; ++half) {
        const u32 dim = step * 16 + half * 8 + 2 * t;
        float2 steps = make_float2(1, 1), shifts = make_float2(0, 0);
        if constexpr (TYPE == kInt4) channel_steps(keys, dim, steps, shifts);
        UNROLL
        for (u32 r = 0; r < 2; ++r) {
          const float* row = rows + (g + 8 * r) * HEAD_DIM + dim;
          a[2 * half + r] = floats_to_halves(row[0] * steps.x, row[1] * steps.y);
          middle[r] += row[0] * shifts.x + row[1] * shifts.y;
        }
      }
      key_step<TYPE>(keys, step, first_key, b);
      UNROLL
      for (u32 j = 0; j < 8; ++j) mma_half(scores[j], a, b[j]);
    }
    UNROLL
    for (u32 r = 0; r < 2; ++r) {
      if constexpr (TYPE == kInt4) {
        middle[r] += shuffle_xor(middle[r], 1);
        middle[r] += shuffle_xor(middle[r], 2);
      }
      UNROLL
      for (u32 j = 0; j < 8; ++j) {
        UNROLL
        for (u32 odd = 0; odd < 2; ++odd) {
          const bool is_key = first_key + 16 * t + 8 * odd + j < page.n_keys;
          const float score = scores[j][2 * r + odd] + middle[r];
          best[r] = is_key ? fmaxf(best[r], score) : best[r];
        }
      }
    }
  }
}

// Blocks: [groups of kWarps candidates][kv_head][16 rows], a warp a candidate.
KERNEL(score_keys, KeyParams, kWarps* kWarp) {
  SHARED(float, rows, kRows* HEAD_DIM);
  const u32 kv_head = blockIdx.y, first_row = blockIdx.z * kRows;
  for (u32 i = threadIdx.x; i < kRows * HEAD_DIM; i += kWarps * kWarp) {
    const u32 row = first_row + i / HEAD_DIM;
    const u64 at = (u64(kv_head) * p.n_rows + row) * HEAD_DIM + i % HEAD_DIM;
    rows[i] = row < p.n_rows ? p.rows[at] : 0;
  }
  __syncthreads();
  const u32 candidate = blockIdx.x * kWarps + warp_idx();
  if (candidate >= p.n_candidates) return;
  const u32 set = p.n_sets == 1 ? 0 : kv_head;
  const Page page = p.units[p.candidates[set * p.n_candidates + candidate]];
  const u8* keys = page.layer + u64(kv_head) * head_bytes(page.kv_type);
  float best[2] = {kNone, kNone};
  if ((KV_TYPES >> kInt8 & 1) && page.kv_type == kInt8) {
    best_of_page<kInt8>(page, keys, rows, best);
  } else if ((KV_TYPES >> kF16 & 1) && page.kv_type == kF16) {
    best_of_page<kF16>(page, keys, rows, best);
  } else if ((KV_TYPES >> kInt4 & 1) && page.kv_type == kInt4) {
    best_of_page<kInt4>(page, keys, rows, best);
  }
  UNROLL
  for (u32 r = 0; r < 2; ++r) {
    best[r] = fmaxf(best[r], shuffle_xor(best[r], 1));
    best[r] = fmaxf(best[r], shuffle_xor(best[r], 2));
    const u32 row = first_row + lane_idx() / 4 + 8 * r;
    if (lane_idx() % 4 == 0 && row < p.n_rows) {
      p.scores[(u64(kv_head) * p.n_rows + row) * p.n_candidates + candidate] = best[r];
    }
  }
}

constexpr u32 kVoteThreads = 256;

struct ShareParams {
  const float* scores;  // [kv_head][row][unit]
  float* shares;        // [kv_head][row][2]: largest score, 1 / sum of exp2(score - largest)
  u32 n_units;
  u32 padding;
};

// Blocks: [kv_head][row].
KERNEL(share_rows, ShareParams, kVoteThreads) {
  SHARED(float, parts, 2 * kVoteThreads / kWarp);
  const float* scores = p.scores + u64(blockIdx.x) * p.n_units;
  float most = kNone, sum = 0;
  for (u32 i = threadIdx.x; i < p.n_units; i += kVoteThreads) {
    const float score = scores[i];
    if (score > most) {
      sum *= fast_exp2(most - score);
      most = score;
    }
    sum += fast_exp2(score - most);
  }
  const float most_of_warp = warp_max(most);
  const float sum_of_warp = warp_sum(sum * fast_exp2(most - most_of_warp));
  if (lane_idx() == 0) {
    parts[2 * warp_idx()] = most_of_warp;
    parts[2 * warp_idx() + 1] = sum_of_warp;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  most = kNone, sum = 0;
  for (u32 i = 0; i < kVoteThreads / kWarp; ++i) most = fmaxf(most, parts[2 * i]);
  for (u32 i = 0; i < kVoteThreads / kWarp; ++i) {
    sum += parts[2 * i + 1] * fast_exp2(parts[2 * i] - most);
  }
  p.shares[2 * blockIdx.x] = most;
  p.shares[2 * blockIdx.x + 1] = 1 / sum;
}

struct VoteParams {
  const float* scores;
  const float* shares;  // or none: scores count for themselves
  float* votes;         // [set][unit]
  u32 n_units;
  u32 n_rows;  // of a KV head: [token group][head of the group]
  u32 n_kv_heads;
  u32 group;
  u32 n_sets;
  u32 padding;
};

// Blocks: [units, a thread each][set].
KERNEL(cast_votes, VoteParams, kVoteThreads) {
  const u32 unit = blockIdx.x * kVoteThreads + threadIdx.x, set = blockIdx.y;
  if (unit >= p.n_units) return;
  const u32 heads_a_set = p.n_kv_heads / p.n_sets;
  float vote = 0;
  for (u32 kv_head = set * heads_a_set; kv_head < (set + 1) * heads_a_set; ++kv_head) {
    for (u32 head = 0; head < p.group; ++head) {
      float best = kNone;
      for (u32 row = head; row < p.n_rows; row += p.group) {
        const u64 of_row = u64(kv_head) * p.n_rows + row;
        float score = p.scores[of_row * p.n_units + unit];
        if (p.shares) score = fast_exp2(score - p.shares[2 * of_row]) * p.shares[2 * of_row + 1];
        best = fmaxf(best, score);
      }
      vote += best;
    }
  }
  p.votes[set * p.n_units + unit] = vote;
}

constexpr u32 kChooseThreads = 1024;

struct ChooseParams {
  const float* votes;  // [set][unit]
  const u32* names;    // [set][unit]: what each is called, or none: its number
  u32* chosen;         // [set][n]: in the order of the units
  u32 n_units;
  u32 n;  // not more than units
};

// Floats as numbers in the same order.
__device__ __forceinline__ u32 ordered(float x) {
  const u32 bits = float_bits(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Blocks: [set]. The n-th largest vote is found eight bits at a time; then all above it are taken,
// and of those that equal it the first ones.
KERNEL(choose_best, ChooseParams, kChooseThreads) {
  SHARED(u32, counts, 256);
  SHARED(u32, found, 2);  // the bits known so far, how many of what has them are wanted
  SHARED(u32, above_of_warp, kChooseThreads / kWarp);
  SHARED(u32, equal_of_warp, kChooseThreads / kWarp);
  const float* votes = p.votes + u64(blockIdx.x) * p.n_units;
  if (threadIdx.x == 0) found[0] = 0, found[1] = p.n;
  for (u32 shift = 24; shift < 32; shift -= 8) {  // ends when it would be below zero
    if (threadIdx.x < 256) counts[threadIdx.x] = 0;
    __syncthreads();
    const u32 known = found[0];
    for (u32 i = threadIdx.x; i < p.n_units; i += kChooseThreads) {
      const u32 key = ordered(votes[i]);
      if (shift == 24 || (key ^ known) >> (shift + 8) == 0)
        atomic_add(&counts[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      u32 wanted = found[1], bin = 255;
      while (bin > 0 && counts[bin] < wanted) wanted -= counts[bin], --bin;
      found[0] = known | bin << shift;
      found[1] = wanted;
    }
    __syncthreads();
  }
  const u32 least = found[0], n_equal = found[1];
  u32 above_before = 0, equal_before = 0;
  for (u32 first = 0; first < p.n_units; first += kChooseThreads) {
    const u32 i = first + threadIdx.x;
    const u32 key = i < p.n_units ? ordered(votes[i]) : 0;
    const bool is_above = i < p.n_units && key > least, is_equal = i < p.n_units && key == least;
    const u32 above = ballot(is_above), equal = ballot(is_equal);
    if (lane_idx() == 0) {
      above_of_warp[warp_idx()] = __popc(above);
      equal_of_warp[warp_idx()] = __popc(equal);
    }
    __syncthreads();
    u32 n_above_here = above_before, n_equal_here = equal_before, total_above = 0, total_equal = 0;
    for (u32 warp = 0; warp < kChooseThreads / kWarp; ++warp) {
      if (warp < warp_idx())
        n_above_here += above_of_warp[warp], n_equal_here += equal_of_warp[warp];
      total_above += above_of_warp[warp], total_equal += equal_of_warp[warp];
    }
    const u32 lower = (1u << lane_idx()) - 1;
    n_above_here += __popc(above & lower);
    n_equal_here += __popc(equal & lower);
    if (is_above || (is_equal && n_equal_here < n_equal)) {
      // Before it come those above, and of the equal ones as many as are taken.
      const u32 equals = n_equal_here < n_equal ? n_equal_here : n_equal;
      const u64 set = blockIdx.x;
      p.chosen[set * p.n + n_above_here + equals] = p.names ? p.names[set * p.n_units + i] : i;
    }
    above_before += total_above, equal_before += total_equal;
    __syncthreads();
  }
}
