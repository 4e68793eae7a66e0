// Runs CUDA kernels on the CPU, for tests of their indexing, barriers and warp operations on machines without a GPU.
//
// csrc/common/cuda.cuh includes this file in place of cuda_runtime.h where MRCNN_EMULATE_CUDA is defined. The blocks of
// a launch run one after another, the threads of a block as fibres: each runs until it has to wait for others. What a
// GPU leaves undefined ends the launch with a message that names kernel, block and thread: threads that wait for ones
// which left or wait elsewhere, warp operations without the whole warp, misaligned vectors, accesses outside of fenced
// memory, and what -fsanitize finds. Shared memory starts out as NaN. A missing barrier shows as a result that is wrong
// in at least one of the two orders of fibres.
//
// What is declared here is what kernels may use. It is stricter than CUDA, but for two things: there is one address
// space for all, and fminf, floorf, ... are those of the C library.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719 };
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t) {
  std::memset(destination, value, bytes);
  return cudaSuccess;
}

namespace cuda_emulator {

constexpr unsigned kWarp = 32;

// Ends the launch with an error that names the thread at work. Leaves through longjmp: no destructor runs.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

inline void require_alignment(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    fail("a vector of %zu bytes at %p, which is not a multiple of them", bytes, address);
  }
}

// Waits for the other threads of the block. Returns how many of them brought a value other than 0.
int meet_block(const char* operation, int value, const char* file, int line);

// Waits for the other lanes of the warp. Returns what each of them brought, valid until the next operation.
const uint64_t* meet_warp(const char* operation, unsigned mask, uint64_t value, const char* file, int line);

// The place of the thread at work within its warp.
unsigned lane();

// Shared memory of a kernel: registers it with the block, and spoils it when the block is the first to ask.
void* shared(void* storage, size_t bytes);
void* dynamic_shared();

struct Launch {
  const char* name;
  dim3 grid, block;
  size_t shared_bytes;
};

// Calls body() for every thread of every block. Does nothing after an error until that is cleared.
void run(const Launch& launch, const std::function<void()>& body);

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments&&... arguments) {
  const std::tuple<std::remove_cv_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  run({name, grid, block, shared_bytes}, [&] { std::apply(kernel, values); });
}

cudaError_t last_error();

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "CUDA shuffles numbers of 4 and 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// The value of lane `source`, or the own one where there is no such lane.
template <typename T>
T shuffle(const char* operation, unsigned mask, T value, unsigned source, const char* file, int line) {
  const uint64_t* values = meet_warp(operation, mask, to_bits(value), file, line);
  return source < kWarp ? from_bits<T>(values[source]) : value;
}

template <typename T, typename Operation>
T exchange(T* address, const Operation& operation) {
  require_alignment(address, sizeof(T));
  const T before = *address;
  *address = operation(before);
  return before;
}

}  // namespace cuda_emulator

#define MRCNN_SHARED(type, name, count)                                    \
  alignas(16) static unsigned char name##_storage[sizeof(type) * (count)]; \
  auto& name = *static_cast<std::type_identity_t<type>(*)[count]>(         \
      cuda_emulator::shared(name##_storage, sizeof(name##_storage)))
#define MRCNN_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(cuda_emulator::dynamic_shared())
#define MRCNN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  cuda_emulator::launch(#kernel, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)
#define MRCNN_CHECK_LAUNCH() cuda_emulator::last_error()
#define MRCNN_MAX_BLOCKS 3

// Barriers and warp operations know where they stand: all who meet must have come to the same place.
#define MRCNN_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(MRCNN_PLACE) { cuda_emulator::meet_block("__syncthreads", 0, file, line); }
inline int __syncthreads_or(int value, MRCNN_PLACE) {
  return cuda_emulator::meet_block("__syncthreads_or", value, file, line) != 0;
}
inline int __syncthreads_count(int value, MRCNN_PLACE) {
  return cuda_emulator::meet_block("__syncthreads_count", value, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, MRCNN_PLACE) {
  cuda_emulator::meet_warp("__syncwarp", mask, 0, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int value, MRCNN_PLACE) {
  const uint64_t* values = cuda_emulator::meet_warp("__ballot_sync", mask, value != 0, file, line);
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < cuda_emulator::kWarp; ++lane) ballot |= static_cast<unsigned>(values[lane]) << lane;
  return ballot;
}
inline int __any_sync(unsigned mask, int value, MRCNN_PLACE) { return __ballot_sync(mask, value, file, line) != 0; }
inline int __all_sync(unsigned mask, int value, MRCNN_PLACE) { return __ballot_sync(mask, value, file, line) == ~0u; }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, MRCNN_PLACE) {
  return cuda_emulator::shuffle("__shfl_sync", mask, value, static_cast<unsigned>(source) % 32, file, line);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, MRCNN_PLACE) {
  return cuda_emulator::shuffle("__shfl_up_sync", mask, value, cuda_emulator::lane() - delta, file, line);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, MRCNN_PLACE) {
  return cuda_emulator::shuffle("__shfl_down_sync", mask, value, cuda_emulator::lane() + delta, file, line);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, MRCNN_PLACE) {
  const unsigned source = cuda_emulator::lane() ^ static_cast<unsigned>(lanes);
  return cuda_emulator::shuffle("__shfl_xor_sync", mask, value, source, file, line);
}

// Atomics in device memory and in shared memory, with CUDA's overloads: 64 bits are unsigned long long.
#define MRCNN_ATOMIC(name, type, result)                                                   \
  inline type name(type* address, type value) {                                            \
    return cuda_emulator::exchange(address, [value](type old) -> type { return result; }); \
  }
MRCNN_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
MRCNN_ATOMIC(atomicAdd, unsigned, old + value)
MRCNN_ATOMIC(atomicAdd, unsigned long long, old + value)
MRCNN_ATOMIC(atomicAdd, float, old + value)
MRCNN_ATOMIC(atomicAdd, double, old + value)
MRCNN_ATOMIC(atomicMax, int, old > value ? old : value)
MRCNN_ATOMIC(atomicMax, unsigned, old > value ? old : value)
MRCNN_ATOMIC(atomicMax, unsigned long long, old > value ? old : value)
MRCNN_ATOMIC(atomicMin, int, old < value ? old : value)
MRCNN_ATOMIC(atomicMin, unsigned, old < value ? old : value)
MRCNN_ATOMIC(atomicMin, unsigned long long, old < value ? old : value)
MRCNN_ATOMIC(atomicOr, unsigned, old | value)
MRCNN_ATOMIC(atomicAnd, unsigned, old & value)
#undef MRCNN_ATOMIC
#define MRCNN_ATOMIC_CAS(type)                                                                        \
  inline type atomicCAS(type* address, type expected, type value) {                                   \
    return cuda_emulator::exchange(address, [=](type old) { return old == expected ? value : old; }); \
  }
MRCNN_ATOMIC_CAS(int)
MRCNN_ATOMIC_CAS(unsigned)
MRCNN_ATOMIC_CAS(unsigned long long)
#undef MRCNN_ATOMIC_CAS

template <typename T>
T __ldg(const T* address) {
  return *address;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline unsigned __float_as_uint(float value) { return static_cast<unsigned>(cuda_emulator::to_bits(value)); }
inline float __uint_as_float(unsigned bits) { return cuda_emulator::from_bits<float>(bits); }
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

#define MRCNN_MIN_MAX(type)                                 \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
MRCNN_MIN_MAX(int)
MRCNN_MIN_MAX(unsigned)
MRCNN_MIN_MAX(long)
MRCNN_MIN_MAX(unsigned long)
MRCNN_MIN_MAX(long long)
MRCNN_MIN_MAX(unsigned long long)
#undef MRCNN_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
