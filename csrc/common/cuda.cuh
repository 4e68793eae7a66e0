// What every .cu includes in place of cuda_runtime.h: shared memory, vector access and launches.
//
// With MRCNN_EMULATE_CUDA a plain C++ compiler takes the same sources: cuda_emulator.h, from tests/ops/cuda_emulation,
// runs their kernels on the CPU, so that they are tested on machines without a GPU. A kernel therefore keeps to what
// the emulator has: the built-ins that it lists, warp operations of whole warps, and the macros below.
#pragma once

#if defined(MRCNN_EMULATE_CUDA)
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>
#endif

#include <cstdint>

#include "half.h"

#if !defined(MRCNN_EMULATE_CUDA)

// `type name[count]` in the memory of the block.
#define MRCNN_SHARED(type, name, count) __shared__ __align__(16) type name[count]

// `type* name`: the memory of the block whose size in bytes MRCNN_LAUNCH gave. All of a kernel's share one address.
#define MRCNN_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char mrcnn_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(mrcnn_dynamic_shared)

// Launches kernel(...) on `stream`; a kernel with several template arguments stands in parentheses.
#define MRCNN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

// cudaSuccess, or why a launch since the last call was refused.
#define MRCNN_CHECK_LAUNCH() cudaGetLastError()

// Of a launch; the emulator has fewer, so that small tests go through the loops over items.
#define MRCNN_MAX_BLOCKS INT32_MAX

#endif

namespace mrcnn {

// The grid of a kernel whose blocks take their items in a loop, gridDim.x apart: one block an item, up to the limit.
inline dim3 grid_for(int64_t items) {
  return dim3(static_cast<unsigned>(items < MRCNN_MAX_BLOCKS ? items : MRCNN_MAX_BLOCKS));
}

// Values that are read and written in one instruction.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  static_assert(sizeof(T) * kWidth <= 16, "the widest access is 16 bytes");
  static_assert((kWidth & (kWidth - 1)) == 0, "the width must be a power of two");
  T values[kWidth];
};

// `source` must be a multiple of the vector's size.
template <int kWidth, typename T>
MRCNN_INLINE Vector<T, kWidth> load_vector(const T* source) {
#if defined(MRCNN_EMULATE_CUDA)
  cuda_emulator::require_alignment(source, sizeof(Vector<T, kWidth>));
#endif
  return *reinterpret_cast<const Vector<T, kWidth>*>(source);
}

// `destination` must be a multiple of the vector's size.
template <int kWidth, typename T>
MRCNN_INLINE void store_vector(T* destination, const Vector<T, kWidth>& vector) {
#if defined(MRCNN_EMULATE_CUDA)
  cuda_emulator::require_alignment(destination, sizeof(Vector<T, kWidth>));
#endif
  *reinterpret_cast<Vector<T, kWidth>*>(destination) = vector;
}

}  // namespace mrcnn
