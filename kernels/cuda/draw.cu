// Which token comes next? Drawn from a row of logits by one random number, a block a row: the
// vocabulary stays on the device, and one number returns for each sequence.
//
// A token's share is exp((logit - largest) / temperature). The least likely are left out (min-p, then
// top-k, then top-p, as on the host), and of what is left the token whose share holds the point drawn is
// taken, shares side by side in the order of tokens. Shares are added up as integers, so that neither
// the order of threads nor that of tokens changes a sum.
#include "platform.cuh"

constexpr u32 kDrawThreads = 512;
constexpr u32 kDrawWarps = kDrawThreads / kWarp;

// Shares as numbers of 36 bits, of which those of a bin's tokens are added up in two halves.
constexpr float kShareUnit = 68719476736.0f;  // 2^36
constexpr u32 kHalfBits = 18;
// A share is found by its bits, six at a time: those of 1, the largest, are 30.
constexpr u32 kDigitBits = 6;
constexpr u32 kBins = 1 << kDigitBits;
constexpr u32 kFirstShift = 24;

struct DrawSettings {
  float factor;  // log2(e) / temperature; 0 for the likeliest token
  float min_p;   // the least share, the largest being 1
  u32 top_k;     // so many tokens; 0 for all
  u32 top_p;     // so much of all shares, in units of 2^-32; 0 for all
  u32 random;    // the point, in the same units
};

struct DrawParams {
  const float* logits;           // [row][vocab]
  const DrawSettings* settings;  // [draw]
  const u32* rows;               // [draw]
  u32* tokens;                   // [draw]
  u32 vocab;
};

// One row, and which of its tokens are left.
struct Row {
  const float* logits;
  u32 vocab;
  float largest, factor;
  u32 least;   // tokens whose share's bits are below are out
  u32 border;  // so are those below this; of those that equal it the first `n_border` stay
  u32 n_border;

  // The bits of a token's share, which are in the order of shares.
  __device__ __forceinline__ u32 key(u32 token) const {
    const float logit = logits[token];
    if (logit == largest) return float_bits(1.0f);
    const float share = fast_exp2((logit - largest) * factor);
    return share > 0.0f ? float_bits(share) : 0;  // also where the logit is no number
  }
};

__device__ __forceinline__ u64 weight_of(u32 key) { return u64(bits_float(key) * kShareUnit); }

__device__ __forceinline__ u64 warp_sum_of(u64 x) {
  for (u32 step = kWarp / 2; step > 0; step /= 2) x += shuffle_xor(x, step);
  return x;
}

// The largest logit of a row, and the first token that has it, in every thread.
__device__ __forceinline__ void find_largest(const float* logits, u32 vocab, float& largest,
                                             u32& first) {
  SHARED(float, largest_of_warp, kDrawWarps);
  SHARED(u32, first_of_warp, kDrawWarps);
  largest = bits_float(0xff800000u), first = vocab;
  const auto take = [&](float logit, u32 token) {
    if (logit > largest || (logit == largest && token < first)) largest = logit, first = token;
  };
  for (u32 i = threadIdx.x; i < vocab; i += kDrawThreads) take(logits[i], i);
  for (u32 step = kWarp / 2; step > 0; step /= 2) {
    const float logit = shuffle_xor(largest, step);
    take(logit, shuffle_xor(first, step));
  }
  if (lane_idx() == 0) largest_of_warp[warp_idx()] = largest, first_of_warp[warp_idx()] = first;
  __syncthreads();
  for (u32 warp = 0; warp < kDrawWarps; ++warp) take(largest_of_warp[warp], first_of_warp[warp]);
}

// At which share, from the largest on, do the tokens of `row` reach `wanted`, each counting one or its
// share? Returns its bits; `wanted` becomes what those that have it are to give.
__device__ u32 share_at(const Row& row, bool by_weight, u64& wanted) {
  // A lane has bins of its own: lanes never wait for each other, and banks are theirs.
  SHARED(u32, low, kBins* kWarp);
  SHARED(u32, high, kBins* kWarp);
  SHARED(u64, totals, kBins);
  u32 known = 0;
  for (u32 shift = kFirstShift; shift <= kFirstShift; shift -= kDigitBits) {
    for (u32 i = threadIdx.x; i < kBins * kWarp; i += kDrawThreads) low[i] = 0, high[i] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i < row.vocab; i += kDrawThreads) {
      const u32 key = row.key(i);
      if (key < row.least || (key ^ known) >> shift >= kBins) continue;
      const u32 bin = (key >> shift & (kBins - 1)) * kWarp + lane_idx();
      const u64 counts_for = by_weight ? weight_of(key) : 1;
      atomic_add(&low[bin], u32(counts_for) & ((1u << kHalfBits) - 1));
      if (counts_for >> kHalfBits) atomic_add(&high[bin], u32(counts_for >> kHalfBits));
    }
    __syncthreads();
    for (u32 bin = warp_idx(); bin < kBins; bin += kDrawWarps) {
      const u32 at = bin * kWarp + lane_idx();
      const u64 total = warp_sum_of(u64(low[at]) + (u64(high[at]) << kHalfBits));
      if (lane_idx() == 0) totals[bin] = total;
    }
    __syncthreads();
    u32 bin = kBins - 1;
    while (bin > 0 && totals[bin] < wanted) wanted -= totals[bin], --bin;
    known |= bin << shift;
  }
  return known;
}

// What a warp's tokens are: a range of the vocabulary, so that ranges are in the order of tokens.
struct Part {
  u64 above;   // shares of those above the border
  u32 equals;  // tokens at it
};

__device__ __forceinline__ u32 part_len(u32 vocab) {
  return (vocab + kDrawThreads - 1) / kDrawThreads * kWarp;
}

__device__ __forceinline__ void sum_parts(const Row& row, Part* parts) {
  const u32 len = part_len(row.vocab), first = warp_idx() * len;
  Part part = {0, 0};
  for (u32 i = first + lane_idx(); i < first + len && i < row.vocab; i += kWarp) {
    const u32 key = row.key(i);
    if (key < row.least) continue;
    if (key > row.border) part.above += weight_of(key);
    part.equals += key == row.border;
  }
  part.above = warp_sum_of(part.above);
  for (u32 step = kWarp / 2; step > 0; step /= 2) part.equals += shuffle_xor(part.equals, step);
  __syncthreads();  // nobody reads the parts of the call before any more
  if (lane_idx() == 0) parts[warp_idx()] = part;
  __syncthreads();
}

// Shares of a part of which `before` tokens at the border come earlier.
__device__ __forceinline__ u64 kept_of(const Row& row, const Part& part, u32 before) {
  const u32 left = row.n_border > before ? row.n_border - before : 0;
  return part.above + (part.equals < left ? part.equals : left) * weight_of(row.border);
}

__device__ __forceinline__ u64 kept_of_all(const Row& row, const Part* parts) {
  u64 sum = 0;
  u32 before = 0;
  for (u32 warp = 0; warp < kDrawWarps; before += parts[warp].equals, ++warp) {
    sum += kept_of(row, parts[warp], before);
  }
  return sum;
}

// The token of this warp's part that holds `point`, of which `before` tokens at the border are earlier.
// The part's lanes find it together.
__device__ __forceinline__ u32 token_at(const Row& row, u64 point, u32 before) {
  const u32 len = part_len(row.vocab), first = warp_idx() * len;
  const u32 lower = (1u << lane_idx()) - 1;
  for (u32 begin = first; begin < first + len; begin += kWarp) {
    const u32 i = begin + lane_idx();
    const u32 key = i < row.vocab ? row.key(i) : 0;
    const u32 equals = ballot(key >= row.least && key == row.border);
    const bool is_first = key == row.border && before + __popc(equals & lower) < row.n_border;
    const bool is_kept = key >= row.least && (key > row.border || is_first);
    u64 upto = is_kept ? weight_of(key) : 0;
    const u64 sum = warp_sum_of(upto);
    if (point < sum) {
      for (u32 step = 1; step < kWarp; step *= 2) {
        const u64 other = shuffle(upto, lane_idx() - step);
        if (lane_idx() >= step) upto += other;
      }
      const u32 beyond = ballot(upto > point);
      return begin + __popc((beyond & (0 - beyond)) - 1);
    }
    point -= sum;
    before += __popc(equals);
  }
  return row.vocab;  // never: the point is within the part
}

KERNEL(draw_tokens, DrawParams, kDrawThreads) {
  SHARED(Part, parts, kDrawWarps);
  const DrawSettings settings = p.settings[blockIdx.x];
  const float* logits = p.logits + u64(p.rows[blockIdx.x]) * p.vocab;
  float largest;
  u32 likeliest;
  find_largest(logits, p.vocab, largest, likeliest);
  if (threadIdx.x == 0) p.tokens[blockIdx.x] = likeliest < p.vocab ? likeliest : 0;  // no number
  if (settings.factor == 0.0f || largest == bits_float(0xff800000u)) return;

  const u32 least = settings.min_p > 0.0f ? float_bits(settings.min_p) : 0;
  Row row = {logits, p.vocab, largest, settings.factor, least > 0 ? least : 1, 0, 0};
  if (settings.top_k > 0 && settings.top_k < p.vocab) {
    u64 wanted = settings.top_k;
    row.border = share_at(row, false, wanted);
    row.n_border = u32(wanted);
  }
  if (settings.top_p > 0) {
    sum_parts(row, parts);
    u64 wanted = __umul64hi(kept_of_all(row, parts), u64(settings.top_p) << 32);
    wanted = wanted > 0 ? wanted : 1;
    row.border = share_at(row, true, wanted);
    const u64 each = weight_of(row.border);
    row.n_border = each > 0 ? u32((wanted + each - 1) / each) : 0;
  }
  sum_parts(row, parts);
  u64 point = __umul64hi(kept_of_all(row, parts), u64(settings.random) << 32);
  u32 before = 0;
  for (u32 warp = 0; warp < kDrawWarps; ++warp) {
    const u64 kept = kept_of(row, parts[warp], before);
    if (point < kept) {
      if (warp != warp_idx()) return;
      const u32 token = token_at(row, point, before);
      if (lane_idx() == 0) p.tokens[blockIdx.x] = token;
      return;
    }
    point -= kept;
    before += parts[warp].equals;
  }
}

struct LogitEdit {
  u64 at;  // [row][vocab]
  float by;
  u32 padding;
};

struct EditParams {
  float* logits;
  const LogitEdit* edits;  // no place twice
  u64 n;
};

constexpr u32 kEditThreads = 256;

// Biases and penalties: few of a vocabulary. A thread each.
KERNEL(edit_logits, EditParams, kEditThreads) {
  const u64 i = u64(blockIdx.x) * kEditThreads + threadIdx.x;
  if (i < p.n) p.logits[p.edits[i].at] += p.edits[i].by;
}
