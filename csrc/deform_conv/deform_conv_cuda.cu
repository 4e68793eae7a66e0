#include "deform_conv_cuda.h"

namespace mrcnn::deform_conv::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = 4;     // of a block that does a sample a warp
constexpr int kSamples = 64;  // of one output pixel that a block holds at a time
constexpr int kGatherThreads = 128;

// Where a channel of one tap stands among the columns.
template <typename A>
__device__ int64_t column_of(const Problem<A>& problem, Rows rows, int64_t row, int64_t tap, int64_t channel) {
  const int64_t size = problem.group_channels();
  return ((channel / size * rows.count + row) * problem.taps() + tap) * size + channel % size;
}

// Calls body(row, sample, tap, channel) for every kWidth channels of every tap of the output pixels, one pixel a block.
template <int kWidth, typename A, typename Body>
__device__ void for_each_read(const Problem<A>& problem, Rows rows, Sample<A>* list, const Body& body) {
  const int total = static_cast<int>(problem.samples()), taps = static_cast<int>(problem.taps());
  const int size = static_cast<int>(problem.sample_channels()), vectors = size / kWidth;
  for (int64_t row = blockIdx.x; row < rows.count; row += gridDim.x) {
    const int64_t pixel = rows.first + row;
    const Origin origin = origin_of(problem, pixel);
    for (int first = 0; first < total; first += kSamples) {
      const int count = min(kSamples, total - first);
      for (int index = threadIdx.x; index < count; index += blockDim.x) {
        list[index] = locate(problem, origin, pixel, first + index);
      }
      __syncthreads();
      for (int item = threadIdx.x; item < count * vectors; item += blockDim.x) {
        const int index = item / vectors, sample = first + index;
        body(row, list[index], sample % taps, sample / taps * size + item % vectors * kWidth);
      }
      __syncthreads();
    }
  }
}

// The sum of the corners times their weights, in the order of the CPU kernel; a corner outside of the map is zero.
template <int kWidth, typename T, typename A>
__device__ void blend(const Problem<A>& problem, const Sample<A>& sample, const T* input, int64_t channel,
                      A (&sums)[kWidth]) {
  for (int lane = 0; lane < kWidth; ++lane) sums[lane] = 0;
  for (int corner = 0; corner < 4; ++corner) {
    if (sample.places[corner] < 0) continue;
    const A weight = sample.weight(corner);
    const auto values = load_vector<kWidth>(input + sample.places[corner] * problem.channels + channel);
    for (int lane = 0; lane < kWidth; ++lane) sums[lane] += load(values.values[lane]) * weight;
  }
}

template <int kWidth, typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    read_rows(Problem<A> problem, Rows rows, const T* __restrict__ input, T* __restrict__ columns) {
  MRCNN_SHARED(Sample<A>, list, kSamples);
  for_each_read<kWidth>(problem, rows, list, [&](int64_t row, const Sample<A>& sample, int tap, int64_t channel) {
    A sums[kWidth];
    blend(problem, sample, input, channel, sums);
    Vector<T, kWidth> values;
    for (int lane = 0; lane < kWidth; ++lane) store(sums[lane], &values.values[lane]);
    store_vector(columns + column_of(problem, rows, row, tap, channel), values);
  });
}

template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    add_rows(Problem<A> problem, Rows rows, const T* __restrict__ columns_grad, A* __restrict__ sums) {
  MRCNN_SHARED(Sample<A>, list, kSamples);
  for_each_read<1>(problem, rows, list, [&](int64_t row, const Sample<A>& sample, int tap, int64_t channel) {
    if (!sample.reads()) return;
    const A grad = load(columns_grad[column_of(problem, rows, row, tap, channel)]);
    for (int corner = 0; corner < 4; ++corner) {
      if (sample.places[corner] < 0) continue;
      atomicAdd(sums + sample.places[corner] * problem.channels + channel, grad * sample.weight(corner));
    }
  });
}

// A warp does one sample; its lanes do neighbouring channels.
template <typename T, typename A>
__global__ void __launch_bounds__(kWarps* kWarp)
    read_rows_backward(Problem<A> problem, Rows rows, const T* __restrict__ input, const T* __restrict__ columns_grad,
                       SampleGrad<A>* __restrict__ grads) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t total = rows.count * problem.samples(), stride = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + warp; item < total; item += stride) {
    const int64_t row = item / problem.samples(), index = item % problem.samples(), pixel = rows.first + row;
    const Sample<A> sample = locate(problem, origin_of(problem, pixel), pixel, index);
    const int64_t begin = index / problem.taps() * problem.sample_channels(), tap = index % problem.taps();
    A products[4] = {};
    for (int64_t channel = begin + lane; channel < begin + problem.sample_channels(); channel += kWarp) {
      const A grad = load(columns_grad[column_of(problem, rows, row, tap, channel)]);
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t place = sample.places[corner];
        if (place >= 0) products[corner] += grad * load(input[place * problem.channels + channel]);
      }
    }
    for (int corner = 0; corner < 4; ++corner) {
      for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        products[corner] += __shfl_xor_sync(0xffffffffu, products[corner], distance);
      }
    }
    if (lane == 0) grads[pixel * problem.samples() + index] = grad_of(sample, products);
  }
}

// A thread does one sample.
template <typename A>
__global__ void __launch_bounds__(kThreads) keys_of_rows(Problem<A> problem, Rows rows, int64_t* __restrict__ keys) {
  const int64_t pixels = problem.num_images * problem.height * problem.width;
  const int64_t total = rows.count * problem.samples(), stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; item < total; item += stride) {
    const int64_t index = item % problem.samples(), pixel = rows.first + item / problem.samples();
    const Sample<A> sample = locate(problem, origin_of(problem, pixel), pixel, index);
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = sample.places[corner];
      const bool inside = place >= 0;
      keys[item * 4 + corner] = inside ? index / problem.taps() * pixels + place : problem.deformable_groups * pixels;
    }
  }
}

// A block does one pixel for one deformable group; a thread adds what its channels get, in order.
template <typename T, typename A>
__global__ void __launch_bounds__(kGatherThreads)
    add_rows_in_order(Problem<A> problem, Rows rows, const T* __restrict__ columns_grad,
                      const int64_t* __restrict__ order, const int64_t* __restrict__ begins, A* __restrict__ sums) {
  const int64_t pixels = problem.num_images * problem.height * problem.width, size = problem.sample_channels();
  for (int64_t item = blockIdx.x; item < problem.deformable_groups * pixels; item += gridDim.x) {
    const int64_t begin = begins[item], end = begins[item + 1], part = item / pixels;
    A* own = sums + item % pixels * problem.channels;
    for (int64_t channel = part * size + threadIdx.x; channel < (part + 1) * size; channel += kGatherThreads) {
      A sum = own[channel];
      for (int64_t at = begin; at < end; ++at) {
        const int64_t entry = order[at], index = entry / 4 % problem.samples(), row = entry / 4 / problem.samples();
        const int64_t pixel = rows.first + row;
        const Sample<A> sample = locate(problem, origin_of(problem, pixel), pixel, index);
        const A grad = load(columns_grad[column_of(problem, rows, row, index % problem.taps(), channel)]);
        sum += grad * sample.weight(static_cast<int>(entry % 4));
      }
      own[channel] = sum;
    }
  }
}

dim3 grid_of_threads(int64_t total) { return grid_for((total + kThreads - 1) / kThreads); }

template <int kWidth, typename T, typename A>
cudaError_t launch_read(const Problem<A>& problem, Rows rows, const T* input, T* columns, cudaStream_t stream) {
  MRCNN_LAUNCH((read_rows<kWidth, T, A>), grid_for(rows.count), dim3(kThreads), 0, stream, problem, rows, input,
               columns);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t read_any(const Problem<A>& problem, Rows rows, const T* input, T* columns, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (rows.count == 0 || problem.channels == 0) return cudaSuccess;
  const bool whole = problem.group_channels() % kWidth == 0 && problem.sample_channels() % kWidth == 0;
  const bool aligned = (reinterpret_cast<uintptr_t>(input) | reinterpret_cast<uintptr_t>(columns)) % 16 == 0;
  return whole && aligned ? launch_read<kWidth>(problem, rows, input, columns, stream)
                          : launch_read<1>(problem, rows, input, columns, stream);
}

template <typename T, typename A>
cudaError_t read_backward_any(const Problem<A>& problem, Rows rows, const T* input, const T* columns_grad,
                              SampleGrad<A>* grads, cudaStream_t stream) {
  const int64_t total = rows.count * problem.samples();
  if (total == 0) return cudaSuccess;
  MRCNN_LAUNCH((read_rows_backward<T, A>), grid_for((total + kWarps - 1) / kWarps), dim3(kWarps * kWarp), 0, stream,
               problem, rows, input, columns_grad, grads);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t scatter_any(const Problem<A>& problem, Rows rows, const T* columns_grad, A* sums, cudaStream_t stream) {
  if (rows.count == 0 || problem.channels == 0) return cudaSuccess;
  MRCNN_LAUNCH((add_rows<T, A>), grid_for(rows.count), dim3(kThreads), 0, stream, problem, rows, columns_grad, sums);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t scatter_in_order_any(const Problem<A>& problem, Rows rows, const T* columns_grad, const int64_t* order,
                                 const int64_t* begins, A* sums, cudaStream_t stream) {
  const int64_t items = problem.deformable_groups * problem.num_images * problem.height * problem.width;
  if (items == 0 || problem.channels == 0) return cudaSuccess;
  MRCNN_LAUNCH((add_rows_in_order<T, A>), grid_for(items), dim3(kGatherThreads), 0, stream, problem, rows, columns_grad,
               order, begins, sums);
  return MRCNN_CHECK_LAUNCH();
}

template <typename A>
cudaError_t write_keys_any(const Problem<A>& problem, Rows rows, int64_t* keys, cudaStream_t stream) {
  const int64_t total = rows.count * problem.samples();
  if (total == 0) return cudaSuccess;
  MRCNN_LAUNCH((keys_of_rows<A>), grid_of_threads(total), dim3(kThreads), 0, stream, problem, rows, keys);
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                                              \
  cudaError_t read(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* input, T* columns,               \
                   cudaStream_t stream) {                                                                            \
    return read_any(problem, rows, input, columns, stream);                                                          \
  }                                                                                                                  \
  cudaError_t read_backward(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* input,                  \
                            const T* columns_grad, SampleGrad<Accumulate<T>::type>* grads, cudaStream_t stream) {    \
    return read_backward_any(problem, rows, input, columns_grad, grads, stream);                                     \
  }                                                                                                                  \
  cudaError_t scatter(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* columns_grad,                 \
                      Accumulate<T>::type* sums, cudaStream_t stream) {                                              \
    return scatter_any(problem, rows, columns_grad, sums, stream);                                                   \
  }                                                                                                                  \
  cudaError_t scatter_in_order(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* columns_grad,        \
                               const int64_t* order, const int64_t* begins, Accumulate<T>::type* sums,               \
                               cudaStream_t stream) {                                                                \
    return scatter_in_order_any(problem, rows, columns_grad, order, begins, sums, stream);                           \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

cudaError_t write_keys(const Problem<float>& problem, Rows rows, int64_t* keys, cudaStream_t stream) {
  return write_keys_any(problem, rows, keys, stream);
}

cudaError_t write_keys(const Problem<double>& problem, Rows rows, int64_t* keys, cudaStream_t stream) {
  return write_keys_any(problem, rows, keys, stream);
}

}  // namespace mrcnn::deform_conv::cuda
