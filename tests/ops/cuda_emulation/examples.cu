// Small kernels, right and wrong, with all that kernels may use: for the tests of the emulator, and for nvcc, which has
// to take what the emulator takes.
#include "../../../csrc/common/cuda.cuh"

namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// The sum over a warp, in every lane.
__device__ __forceinline__ float add_warp(float value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAll, value, lanes);
  return value;
}

__global__ void __launch_bounds__(kThreads)
    sum_by_shuffles(const float* __restrict__ values, int64_t count, float* __restrict__ sums) {
  MRCNN_SHARED(float, partial, kThreads / kWarp);
  float sum = 0;
  for (int64_t index = blockIdx.x * kThreads + threadIdx.x; index < count; index += gridDim.x * kThreads) {
    sum += __ldg(values + index);
  }
  sum = add_warp(sum);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = threadIdx.x < kThreads / kWarp ? partial[threadIdx.x] : 0.0f;
  for (unsigned lanes = kThreads / kWarp / 2; lanes > 0; lanes /= 2) sum += __shfl_down_sync(kAll, sum, lanes);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Each thread gives its value to the one below it, the first to the last.
template <bool kBarrier, typename T>
__global__ void shift_by_memory(const T* values, T* shifted) {
  MRCNN_DYNAMIC_SHARED(T, exchanged);
  exchanged[threadIdx.x] = values[threadIdx.x];
  if (kBarrier) __syncthreads();
  shifted[threadIdx.x] = exchanged[(threadIdx.x + 1) % blockDim.x];
}

// bins: [8], of the values modulo 8; extremes: [5] maximum, minimum, the two masks of the bins, an index in place of 7.
__global__ void count_atomically(const int* values, int count, int* bins, unsigned* extremes, unsigned long long* total,
                                 double* sum) {
  MRCNN_SHARED(int, block_bins, 8);
  if (threadIdx.x < 8) block_bins[threadIdx.x] = 0;
  __syncthreads();
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index < count) {
    const int value = values[index];
    atomicAdd(block_bins + value % 8, 1);
    atomicMax(extremes, static_cast<unsigned>(value));
    atomicMin(extremes + 1, static_cast<unsigned>(value));
    atomicOr(extremes + 2, 1u << (value % 8));
    atomicAnd(extremes + 3, ~(1u << (value % 8)));
    atomicCAS(extremes + 4, 7u, static_cast<unsigned>(index));
    atomicAdd(total, static_cast<unsigned long long>(value));
    atomicAdd(sum, static_cast<double>(value));
  }
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(bins + threadIdx.x, block_bins[threadIdx.x]);
}

// results: [kThreads, 10], what each lane sees of the values of all.
__global__ void vote(const int* values, int* results) {
  const int lane = threadIdx.x % kWarp, value = values[threadIdx.x];
  int* seen = results + threadIdx.x * 10;
  seen[0] = static_cast<int>(__ballot_sync(kAll, value > 0));
  seen[1] = __any_sync(kAll, value > 0);
  seen[2] = __all_sync(kAll, value > 0);
  seen[3] = __shfl_sync(kAll, value, 5);
  seen[4] = __shfl_up_sync(kAll, value, 3);
  seen[5] = __shfl_down_sync(kAll, value, 3);
  seen[6] = __shfl_xor_sync(kAll, value, 9);
  __syncwarp();
  seen[7] = __syncthreads_or(value == 3);
  seen[8] = __syncthreads_count(value > 0);
  seen[9] = __popc(__ballot_sync(kAll, value > 0) & ((1u << lane) - 1));
}

// places: [count], the place of each thread of the grid, by all of its coordinates.
__global__ void locate(int* places) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  places[block * (blockDim.x * blockDim.y * blockDim.z) + thread] += static_cast<int>(block * 1000 + thread);
}

// values: [count] bit patterns; results: [count, 8].
__global__ void look_at_bits(const int* values, int* results) {
  const int value = values[threadIdx.x];
  const auto wide = static_cast<unsigned long long>(static_cast<unsigned>(value)) << 16;
  int* seen = results + threadIdx.x * 8;
  seen[0] = __popc(static_cast<unsigned>(value));
  seen[1] = __popcll(wide);
  seen[2] = __ffs(value);
  seen[3] = __ffsll(static_cast<long long>(wide));
  seen[4] = __clz(value);
  seen[5] = __float_as_int(__int_as_float(value) * 2.0f);
  seen[6] = static_cast<int>(__float_as_uint(__uint_as_float(static_cast<unsigned>(value))));
  seen[7] = min(max(value, -5), static_cast<int>(min(fminf(7.5f, 100.0f), max(fmaxf(2.0f, 1.0f), floorf(9.5f)))));
}

struct Vectors {
  const mrcnn::Half* values;
  int64_t count;
};

template <int kWidth>
__global__ void double_vectors(const __grid_constant__ Vectors vectors, mrcnn::Half* doubled) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * kWidth;
  int64_t first = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kWidth;
  for (; first < vectors.count; first += stride) {
    mrcnn::Vector<mrcnn::Half, kWidth> vector = mrcnn::load_vector<kWidth>(vectors.values + first);
    for (mrcnn::Half& value : vector.values) mrcnn::store(mrcnn::load(value) * 2.0f, &value);
    mrcnn::store_vector(doubled + first, vector);
  }
}

// What must not be done, by number. values: [4].
__global__ void misuse(int kind, int* values) {
  MRCNN_SHARED(int, array, 4);
  const int thread = static_cast<int>(threadIdx.x);
  if (kind == 0) {
    if (thread < 40) __syncthreads();
  } else if (kind == 1) {
    if (thread < 40) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (kind == 2) {
    if (thread != 7) values[0] = __shfl_sync(kAll, thread, 0);
    __syncthreads();
  } else if (kind == 3) {
    values[0] = __shfl_sync(0xffu, thread, 0);
  } else if (kind == 4) {
    values[0] = values[4 + thread];
  } else if (kind == 5) {
    values[thread / 8] = array[thread / 8 + kind - 4];
  } else if (kind == 6) {
    values[0] = 2147483647 - 33 + thread;
  } else if (kind == 7) {
    values[0] = mrcnn::load_vector<2>(values + 1).values[0];
  } else if (kind == 8) {
    values[0] = 5 / (thread - 33);
  } else if (kind == 9) {
    values[thread % 4] = array[thread % 4];
  } else if (kind == 10) {
    if (thread == 0) values[-1] = 1;
  }
}

}  // namespace

extern "C" int sum(const float* values, int64_t count, float* sums, int64_t num_blocks) {
  MRCNN_LAUNCH(sum_by_shuffles, dim3(static_cast<unsigned>(num_blocks)), dim3(kThreads), 0, nullptr, values, count,
               sums);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int shift(const double* values, double* shifted, int64_t count, bool barrier) {
  const auto threads = static_cast<unsigned>(count);
  if (barrier) {
    MRCNN_LAUNCH((shift_by_memory<true, double>), 1, threads, count * sizeof(double), nullptr, values, shifted);
  } else {
    MRCNN_LAUNCH((shift_by_memory<false, double>), 1, threads, count * sizeof(double), nullptr, values, shifted);
  }
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int count(const int* values, int64_t num_values, int* bins, unsigned* extremes, unsigned long long* total,
                     double* sum) {
  const auto num_blocks = static_cast<unsigned>((num_values + kThreads - 1) / kThreads);
  MRCNN_LAUNCH(count_atomically, num_blocks, kThreads, 0, nullptr, values, static_cast<int>(num_values), bins, extremes,
               total, sum);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int votes(const int* values, int* results) {
  MRCNN_LAUNCH(vote, 1, kThreads, 0, nullptr, values, results);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int places(int* results) {
  MRCNN_LAUNCH(locate, dim3(3, 2, 2), dim3(4, 3, 2), 0, nullptr, results);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int bits(const int* values, int64_t num_values, int* results) {
  MRCNN_LAUNCH(look_at_bits, 1, static_cast<unsigned>(num_values), 0, nullptr, values, results);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int twice(const mrcnn::Half* values, int64_t num_values, mrcnn::Half* results) {
  const Vectors vectors{values, num_values};
  MRCNN_LAUNCH((double_vectors<8>), mrcnn::grid_for((num_values + 255) / 256), 32, 0, nullptr, vectors, results);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int wrong(int64_t kind, int* values) {
  MRCNN_LAUNCH(misuse, 2, 64, 0, nullptr, static_cast<int>(kind), values);
  return MRCNN_CHECK_LAUNCH();
}

extern "C" int launch_of(int64_t blocks, int64_t threads, int64_t shared_bytes, int* values) {
  MRCNN_LAUNCH(misuse, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes, nullptr, -1,
               values);
  return MRCNN_CHECK_LAUNCH();
}
