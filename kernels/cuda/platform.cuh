// What do kernels stand on? What they ask of a device beyond plain C++, by one name each. Defined
// here for a GPU (sm_80 and later, compiled by NVRTC without any header of the toolkit) and in
// emulation/emulation.h for a host.
#pragma once

#ifdef MNEME_EMULATED
#include "emulation.h"
#else

using i8 = signed char;
using u8 = unsigned char;
using i16 = short;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using u64 = unsigned long long;

// A kernel `name` of parameters `p`, for blocks of at most `threads` threads.
#define KERNEL(name, Params, threads) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)
#define UNROLL _Pragma("unroll")
#define UNROLL_TWO _Pragma("unroll 2")
#define NO_UNROLL _Pragma("unroll 1")
#define SHARED(type, name, len) __shared__ __align__(16) type name[len]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]

constexpr u32 kAllLanes = 0xffffffffu;

template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
template <typename T>
__device__ __forceinline__ T shuffle(T value, unsigned lane) {
  return __shfl_sync(kAllLanes, value, lane);
}
__device__ __forceinline__ u32 ballot(bool is) { return __ballot_sync(kAllLanes, is); }

__device__ __forceinline__ u32 float_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float bits_float(u32 bits) { return __uint_as_float(bits); }

__device__ __forceinline__ float half_to_float(u16 half) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
}
__device__ __forceinline__ u16 float_to_half(float x) {
  u16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
}
__device__ __forceinline__ float bfloat_to_float(u16 bits) { return bits_float(u32(bits) << 16); }
__device__ __forceinline__ u16 float_to_bfloat(float x) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ __forceinline__ int dot4(int a, int b, int sum) { return __dp4a(a, b, sum); }
__device__ __forceinline__ int dot2_low(int shorts, int bytes, int sum) {
  int out;
  asm("dp2a.lo.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(shorts), "r"(bytes), "r"(sum));
  return out;
}
__device__ __forceinline__ int dot2_high(int shorts, int bytes, int sum) {
  int out;
  asm("dp2a.hi.s32.s32 %0, %1, %2, %3;" : "=r"(out) : "r"(shorts), "r"(bytes), "r"(sum));
  return out;
}

// Bytes of two words, by a selector with a nibble each (see PTX, prmt).
__device__ __forceinline__ u32 permute(u32 low, u32 high, u32 selector) {
  return __byte_perm(low, high, selector);
}
// Pairs of halves: a - b, a * b.
__device__ __forceinline__ u32 subtract_halves(u32 a, u32 b) {
  u32 out;
  asm("sub.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ u32 multiply_halves(u32 a, u32 b) {
  u32 out;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_reciprocal(float x) { return __frcp_rn(x); }
__device__ __forceinline__ float fast_rsqrt(float x) { return rsqrtf(x); }
__device__ __forceinline__ void atomic_add(u32* at, u32 x) { atomicAdd(at, x); }

// 16 bytes from global to shared memory, zeros where they are not valid; both 16-byte aligned.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global,
                                              bool is_valid = true) {
  const u32 to = u32(__cvta_generic_to_shared(shared));
  const int n_valid = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(n_valid));
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;"); }
// Waits until at most the last N groups have not arrived.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ __forceinline__ void ldmatrix(u32 (&out)[4], const void* row) {
  const u32 at = u32(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ void ldmatrix_transposed(u32 (&out)[4], const void* row) {
  const u32 at = u32(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ void mma_half(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bfloat(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif  // MNEME_EMULATED

constexpr u32 kWarp = 32;

// Which lane of its warp, and which warp of its block, a thread of a one-dimensional block is.
__device__ __forceinline__ u32 lane_idx() { return threadIdx.x % kWarp; }
__device__ __forceinline__ u32 warp_idx() { return threadIdx.x / kWarp; }

// Sums over the lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float x) {
  for (u32 step = kWarp / 2; step > 0; step /= 2) x += shuffle_xor(x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (u32 step = kWarp / 2; step > 0; step /= 2) {
    const float other = shuffle_xor(x, step);
    x = other > x ? other : x;
  }
  return x;
}

// The halves of a 32-bit word as floats, and back: the first in the lower bits.
__device__ __forceinline__ float2 halves_to_floats(u32 pair) {
  return make_float2(half_to_float(u16(pair)), half_to_float(u16(pair >> 16)));
}
__device__ __forceinline__ u32 floats_to_halves(float first, float second) {
  return u32(float_to_half(first)) | u32(float_to_half(second)) << 16;
}
