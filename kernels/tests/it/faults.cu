// Kernels that do what a kernel must not, one each: does the emulation notice?
#include "platform.cuh"

struct Params {
  float* x;  // [64]
};

KERNEL(beyond_the_buffer, Params, 64) { p.x[threadIdx.x + 1] = 1; }

KERNEL(beyond_shared_memory, Params, 64) {
  DYNAMIC_SHARED(bytes);
  bytes[threadIdx.x * 4 + 3] = 1;  // 252 bytes are there
}

KERNEL(not_aligned, Params, 64) {
  const float4 four = *reinterpret_cast<const float4*>(p.x + 1);
  p.x[threadIdx.x] = four.x;
}

KERNEL(barrier_for_some, Params, 64) {
  if (threadIdx.x < 32) __syncthreads();
}

KERNEL(different_barriers, Params, 64) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

KERNEL(exchange_without_some_lanes, Params, 64) {
  if (lane_idx() != 5) p.x[threadIdx.x] = shuffle_xor(1.0f, 1);
}

KERNEL(no_barrier, Params, 64) {
  SHARED(float, shared, 64);
  shared[threadIdx.x] = float(threadIdx.x);
  p.x[threadIdx.x] = shared[(threadIdx.x + 32) % 64];
}

KERNEL(copy_not_awaited, Params, 64) {
  SHARED(float, shared, 64);
  if (threadIdx.x < 16) copy_async_16(shared + 4 * threadIdx.x, p.x + 4 * threadIdx.x);
  copy_async_commit();
  copy_async_wait<1>();
  __syncthreads();
  p.x[threadIdx.x] = shared[threadIdx.x];
}

KERNEL(harmless, Params, 64) {
  SHARED(float, shared, 64);
  if (threadIdx.x < 16) copy_async_16(shared + 4 * threadIdx.x, p.x + 4 * threadIdx.x);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  p.x[threadIdx.x] = shared[63 - threadIdx.x] + warp_sum(1);
}
