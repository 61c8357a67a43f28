// How does a kernel run without a GPU? Every thread of a block is a fibre of one ordinary thread,
// run in turn until it waits for others: at a block's barrier, or in an exchange within its warp.
// What a kernel asks of the device is defined here a second time, plainly; the first is in
// cuda/platform.cuh.
//
// The emulation is strict where a device is lenient: every lane of a warp takes part in every
// exchange, a thread that ends while others wait for it is an error, asynchronous copies arrive
// only when they are waited for, and shared memory begins as NaNs. Threads run in an order that the
// caller chooses, so that a missing barrier shows as a result that depends on it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

using i8 = std::int8_t;
using u8 = std::uint8_t;
using i16 = std::int16_t;
using u16 = std::uint16_t;
using i32 = std::int32_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  u32 x, y;
};
struct alignas(16) uint4 {
  u32 x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

namespace emulation {

// Where the running thread is.
struct Place {
  dim3 thread, block, block_dim, grid_dim;
};
extern Place place;

// Bytes that a lane can exchange at once.
constexpr std::size_t kSlotBytes = 64;

void sync_block(int line);
// Leaves a lane's bytes where its warp finds them and waits until all lanes have; returns the
// warp's slots, `[lane][kSlotBytes]`, which stay until the lane's next exchange but one.
const u8* exchange(const void* bytes, std::size_t n, int line);
u8* dynamic_shared();

void copy_async(void* to, const void* from, std::size_t n, std::size_t n_valid);
void copy_async_commit();
void copy_async_wait(int n_pending);

// A kernel by its name.
struct Kernel {
  Kernel(const char* name, std::size_t params_bytes, unsigned threads, void (*run)(const void*));
};
// Shared memory of the running block; made of NaNs again for each.
struct Shared {
  Shared(void* at, std::size_t bytes);
};
template <typename T, std::size_t N>
struct SharedArray {
  Shared known{at, sizeof(at)};
  alignas(16) T at[N];
  operator T*() { return at; }
};

template <typename T>
T from_slot(const u8* slots, unsigned lane) {
  T value;
  std::memcpy(&value, slots + lane * kSlotBytes, sizeof(T));
  return value;
}
inline unsigned lane() {
  const unsigned linear =
      (place.thread.z * place.block_dim.y + place.thread.y) * place.block_dim.x + place.thread.x;
  return linear % 32;
}

}  // namespace emulation

#define threadIdx (emulation::place.thread)
#define blockIdx (emulation::place.block)
#define blockDim (emulation::place.block_dim)
#define gridDim (emulation::place.grid_dim)

#define __device__
#define __forceinline__ inline
#define KERNEL(name, Params, threads)                                         \
  static void name(const Params& p);                                          \
  static const emulation::Kernel kernel_##name(                               \
      #name, sizeof(Params), threads,                                         \
      [](const void* params) { name(*static_cast<const Params*>(params)); }); \
  static void name(const Params& p)
#define UNROLL  // registers have no addresses there, variables here have
#define UNROLL_TWO
#define NO_UNROLL
#define SHARED(type, name, len) static emulation::SharedArray<type, len> name
#define DYNAMIC_SHARED(name) u8* const name = emulation::dynamic_shared()

inline void __trap() { __builtin_trap(); }
inline void __syncthreads(int line = __builtin_LINE()) { emulation::sync_block(line); }
inline void __syncwarp(int line = __builtin_LINE()) { emulation::exchange("", 1, line); }

template <typename T>
T shuffle_xor(T value, unsigned mask, int line = __builtin_LINE()) {
  const u8* slots = emulation::exchange(&value, sizeof(T), line);
  return emulation::from_slot<T>(slots, emulation::lane() ^ mask);
}
template <typename T>
T shuffle(T value, unsigned lane, int line = __builtin_LINE()) {
  const u8* slots = emulation::exchange(&value, sizeof(T), line);
  return emulation::from_slot<T>(slots, lane % 32);
}
inline u32 ballot(bool is, int line = __builtin_LINE()) {
  const u8* slots = emulation::exchange(&is, 1, line);
  u32 lanes = 0;
  for (unsigned i = 0; i < 32; ++i) lanes |= u32(slots[i * emulation::kSlotBytes]) << i;
  return lanes;
}

inline u32 float_bits(float x) {
  u32 bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float bits_float(u32 bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
// IEEE 754 binary16, to nearest, ties to even.
inline float half_to_float(u16 half) {
  const u32 sign = u32(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 31) return bits_float(sign | 0x7f800000 | (fraction << 13));
  if (exponent == 0 && fraction == 0) return bits_float(sign);
  if (exponent == 0) return bits_float(sign | float_bits(std::ldexp(float(fraction), -24)));
  return bits_float(sign | ((exponent + 112) << 23) | (fraction << 13));
}
inline u16 float_to_half(float x) {
  const u16 sign = u16((float_bits(x) >> 16) & 0x8000);
  const float size = std::fabs(x);
  if (std::isnan(x)) return sign | 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < 0x1p-14f) return sign | u16(std::nearbyint(std::ldexp(size, 24)));
  int exponent;
  const float fraction = std::frexp(size, &exponent);  // [0.5, 1)
  const u32 rounded =
      u32(std::nearbyint(std::ldexp(fraction, 11)));  // a carry moves the exponent on
  return sign | u16((u32(exponent + 13) << 10) + rounded);
}
inline float bfloat_to_float(u16 bits) { return bits_float(u32(bits) << 16); }
inline u16 float_to_bfloat(float x) {
  if (std::isnan(x)) return 0x7fff;
  const u32 bits = float_bits(x);
  return u16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline int dot4(int a, int b, int sum) {
  for (int i = 0; i < 32; i += 8) sum += i8(u32(a) >> i) * i8(u32(b) >> i);
  return sum;
}
// Two 16-bit numbers with the lower (or upper) two bytes of `bytes`.
inline int dot2_low(int shorts, int bytes, int sum) {
  return sum + i16(shorts) * i8(bytes) + i16(u32(shorts) >> 16) * i8(u32(bytes) >> 8);
}
inline int dot2_high(int shorts, int bytes, int sum) {
  return dot2_low(shorts, int(u32(bytes) >> 16), sum);
}

inline u32 permute(u32 low, u32 high, u32 selector) {
  const u64 both = u64(high) << 32 | low;
  u32 out = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 from = selector >> (4 * i) & 7;  // what repeats a byte's sign is not asked for
    out |= u32(both >> (8 * from) & 0xff) << (8 * i);
  }
  return out;
}
inline u32 subtract_halves(u32 a, u32 b) {
  const auto of = [](u16 a, u16 b) { return float_to_half(half_to_float(a) - half_to_float(b)); };
  return u32(of(u16(a), u16(b))) | u32(of(u16(a >> 16), u16(b >> 16))) << 16;
}
inline u32 multiply_halves(u32 a, u32 b) {
  const auto of = [](u16 a, u16 b) { return float_to_half(half_to_float(a) * half_to_float(b)); };
  return u32(of(u16(a), u16(b))) | u32(of(u16(a >> 16), u16(b >> 16))) << 16;
}

inline float fast_log2(float x) { return std::log2(x); }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float fast_reciprocal(float x) { return 1.0f / x; }
inline float fast_rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline void atomic_add(u32* at, u32 x) { *at += x; }
inline u64 __umul64hi(u64 a, u64 b) { return u64((unsigned __int128)a * b >> 64); }
inline u32 __popc(u32 bits) { return u32(__builtin_popcount(bits)); }

inline void copy_async_16(void* shared, const void* global, bool is_valid = true) {
  emulation::copy_async(shared, global, 16, is_valid ? 16 : 0);
}
inline void copy_async_commit() { emulation::copy_async_commit(); }
template <int N>
void copy_async_wait() {
  emulation::copy_async_wait(N);
}

// Four 8x8 matrices of 16-bit elements. Lane `8 m + r` gives row `r` of matrix `m`; lane `l` gets
// of each the elements `2 (l % 4)` and the next of row `l / 4`, or of column `l / 4` where
// transposed.
inline void load_matrices(u32 (&out)[4], const void* row, bool is_transposed, int line) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) __builtin_trap();
  const u8* slots = emulation::exchange(row, 16, line);
  const unsigned lane = emulation::lane();
  for (unsigned m = 0; m < 4; ++m) {
    u16 pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned inner = lane % 4 * 2 + i, outer = lane / 4;
      const unsigned r = is_transposed ? inner : outer, c = is_transposed ? outer : inner;
      std::memcpy(&pair[i], slots + (8 * m + r) * emulation::kSlotBytes + 2 * c, 2);
    }
    out[m] = pair[0] | u32(pair[1]) << 16;
  }
}
inline void ldmatrix(u32 (&out)[4], const void* row, int line = __builtin_LINE()) {
  load_matrices(out, row, false, line);
}
inline void ldmatrix_transposed(u32 (&out)[4], const void* row, int line = __builtin_LINE()) {
  load_matrices(out, row, true, line);
}

// d[16][8] += a[16][16] b[16][8], of 16-bit floats, summed in f32. Lane `l`, with g = l / 4 and t =
// l % 4:
//   a: rows g, g + 8 of columns 2t.., then the same rows of columns 2t + 8..
//   b: rows 2t.., then 2t + 8.., of column g         d: row g, then g + 8, of columns 2t..
template <float (*WIDEN)(u16)>
void multiply_tiles(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], int line) {
  struct Operands {
    u32 a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof(a));
  std::memcpy(mine.b, b, sizeof(b));
  const u8* slots = emulation::exchange(&mine, sizeof(mine), line);
  const auto half_of = [](u32 pair, unsigned i) { return WIDEN(u16(i == 0 ? pair : pair >> 16)); };
  const unsigned lane = emulation::lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + (i / 2) * 8, col = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const auto of_a = emulation::from_slot<Operands>(slots, row % 8 * 4 + k % 8 / 2);
      const auto of_b = emulation::from_slot<Operands>(slots, col * 4 + k % 8 / 2);
      sum += half_of(of_a.a[(k / 8) * 2 + row / 8], k % 2) * half_of(of_b.b[k / 8], k % 2);
    }
    d[i] += sum;
  }
}
inline void mma_half(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2],
                     int line = __builtin_LINE()) {
  multiply_tiles<half_to_float>(d, a, b, line);
}
inline void mma_bfloat(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2],
                       int line = __builtin_LINE()) {
  multiply_tiles<bfloat_to_float>(d, a, b, line);
}
