#include <algorithm>
#include <limits>

#include "roi_pool_cuda.h"
#include "roi_pool_geometry.cuh"

namespace mrcnn::roi_pool::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kGatherThreads = 128;
constexpr int kWarp = 32;
template <typename A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();
template <typename A>
constexpr A kNan = std::numeric_limits<A>::quiet_NaN();

// The running maximum of one bin and channel: the first of equal values wins, and NaN wins and stays.
template <typename A>
struct Best {
  A value;
  int32_t place;

  __device__ void offer(A candidate, int32_t pixel) {
    const bool wins = candidate > value || (candidate != candidate && value == value);
    value = wins ? candidate : value;
    place = wins ? pixel : place;
  }
};

template <typename A>
__device__ Best<A> start(const Roi<A>& roi, Range rows, Range columns, int64_t width) {
  if (!roi.exists()) return {kNan<A>, -1};
  if (rows.begin >= rows.end || columns.begin >= columns.end) return {A(0), -1};
  return {-kInfinity<A>, static_cast<int32_t>(rows.begin * width + columns.begin)};
}

// A thread does one output value; neighbours do neighbouring bins of one channel.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    forward_planes(Problem<A> problem, const T* __restrict__ features, T* __restrict__ output,
                   int32_t* __restrict__ argmax) {
  const int64_t bins = problem.bins(), total = problem.num_rois * problem.channels * bins;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < total; index += stride) {
    const int bin = static_cast<int>(index % bins), pooled_width = static_cast<int>(problem.pooled_width);
    const int64_t channel = index / bins % problem.channels;
    const Roi<A> roi(problem, index / (bins * problem.channels));
    const Range rows = roi.rows(bin / pooled_width), columns = roi.columns(bin % pooled_width);
    const T* plane = features + (roi.image() * problem.channels + channel) * problem.pixels();
    Best<A> best = start(roi, rows, columns, problem.width);
    for (int y = rows.begin; y < rows.end; ++y) {
      for (int x = columns.begin; x < columns.end; ++x) {
        const int32_t pixel = static_cast<int32_t>(y * problem.width + x);
        best.offer(load(plane[pixel]), pixel);
      }
    }
    store(best.value, output + index);
    argmax[index] = best.place;
  }
}

template <int kWidth, typename T, typename A>
__device__ void write(const Best<A> (&best)[kWidth], T* output, int32_t* argmax) {
  constexpr int kPlaces = kWidth < 4 ? kWidth : 4;  // 16 bytes
  Vector<T, kWidth> values;
  for (int lane = 0; lane < kWidth; ++lane) store(best[lane].value, &values.values[lane]);
  store_vector(output, values);
  for (int first = 0; first < kWidth; first += kPlaces) {
    Vector<int32_t, kPlaces> places;
    for (int lane = 0; lane < kPlaces; ++lane) places.values[lane] = best[first + lane].place;
    store_vector(argmax + first, places);
  }
}

// A block does one bin; a thread does kWidth channels of it at a time.
template <int kWidth, typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    forward_channels(Problem<A> problem, const T* __restrict__ features, T* __restrict__ output,
                     int32_t* __restrict__ argmax) {
  const int64_t bins = problem.bins(), channels = problem.channels;
  const int pooled_width = static_cast<int>(problem.pooled_width);
  for (int64_t item = blockIdx.x; item < problem.num_rois * bins; item += gridDim.x) {
    const int bin = static_cast<int>(item % bins);
    const Roi<A> roi(problem, item / bins);
    const Range rows = roi.rows(bin / pooled_width), columns = roi.columns(bin % pooled_width);
    const T* image = features + roi.image() * problem.pixels() * channels;
    const Best<A> first = start(roi, rows, columns, problem.width);
    for (int64_t channel = threadIdx.x * kWidth; channel < channels; channel += blockDim.x * kWidth) {
      Best<A> best[kWidth];
      for (int lane = 0; lane < kWidth; ++lane) best[lane] = first;
      for (int y = rows.begin; y < rows.end; ++y) {
        for (int x = columns.begin; x < columns.end; ++x) {
          const int32_t pixel = static_cast<int32_t>(y * problem.width + x);
          const Vector<T, kWidth> values = load_vector<kWidth>(image + pixel * channels + channel);
          for (int lane = 0; lane < kWidth; ++lane) best[lane].offer(load(values.values[lane]), pixel);
        }
      }
      write(best, output + item * channels + channel, argmax + item * channels + channel);
    }
  }
}

// A thread does one value of grad.
template <typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    scatter(Problem<A> problem, const T* __restrict__ grad, const int32_t* __restrict__ argmax, A* __restrict__ sums) {
  const int64_t bins = problem.bins(), channels = problem.channels, pixels = problem.pixels();
  const int64_t total = problem.num_rois * channels * bins, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; index < total; index += stride) {
    const int64_t pixel = argmax[index];
    if (pixel < 0 || pixel >= pixels) continue;
    const Roi<A> roi(problem, index / (bins * channels));
    if (!roi.reads()) continue;
    const int64_t channel = problem.channels_last ? index % channels : index / bins % channels;
    const int64_t place = problem.channels_last ? (roi.image() * pixels + pixel) * channels + channel
                                                : (roi.image() * channels + channel) * pixels + pixel;
    atomicAdd(sums + place, load(grad[index]));
  }
}

// Bins of one roi that hold one pixel: rows [top, bottom) and columns [left, right) of them.
struct Hit {
  int64_t roi;
  int top, bottom, left, right;
};

// Bins that hold a pixel form a range, since their edges ascend.
template <typename Find>
__device__ Range bins_with(int pixel, int64_t num_bins, const Find& find) {
  Range range{0, 0};
  for (int bin = 0; bin < num_bins; ++bin) {
    if (find(bin).holds(pixel)) range = {range.begin < range.end ? range.begin : bin, bin + 1};
  }
  return range;
}

template <typename A>
__device__ bool find_hit(const Problem<A>& problem, int64_t index, int64_t image, int y, int x, Hit& hit) {
  if (index >= problem.num_rois) return false;
  const Roi<A> roi(problem, index);
  if (!roi.reads() || roi.image() != image) return false;
  const Range rows = bins_with(y, problem.pooled_height, [&](int bin) { return roi.rows(bin); });
  if (rows.begin >= rows.end) return false;
  const Range columns = bins_with(x, problem.pooled_width, [&](int bin) { return roi.columns(bin); });
  hit = {index, rows.begin, rows.end, columns.begin, columns.end};
  return columns.begin < columns.end;
}

// Writes the hits of a block into shared memory in the order of its threads. Returns their number. Ends with a barrier.
__device__ int collect_hits(bool hits, const Hit& hit, int* warp_counts, Hit* list) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t ballot = __ballot_sync(0xffffffffu, hits);
  if (lane == 0) warp_counts[warp] = __popc(ballot);
  __syncthreads();
  int position = __popc(ballot & ((1u << lane) - 1)), total = 0;
  for (int other = 0; other < kGatherThreads / kWarp; ++other) {
    position += other < warp ? warp_counts[other] : 0;
    total += warp_counts[other];
  }
  if (hits) list[position] = hit;
  __syncthreads();
  return total;
}

// What one pixel of one channel gets from the bins of a hit, in their order.
template <typename T, typename A>
__device__ A add_hit(const Problem<A>& problem, const Hit& hit, const T* grad, const int32_t* argmax, int32_t pixel,
                     int64_t channel, A sum) {
  for (int row = hit.top; row < hit.bottom; ++row) {
    for (int column = hit.left; column < hit.right; ++column) {
      const int64_t bin = hit.roi * problem.bins() + row * problem.pooled_width + column;
      const int64_t index = bin * problem.channels + channel;
      if (argmax[index] == pixel) sum += load(grad[index]);
    }
  }
  return sum;
}

// A block does kGatherThreads channels of one pixel: its threads look for the rois that hold the pixel, kGatherThreads
// at a time, then each walks those for its own channel.
template <typename T, typename A>
__global__ void __launch_bounds__(kGatherThreads)
    gather(Problem<A> problem, const T* __restrict__ grad, const int32_t* __restrict__ argmax,
           T* __restrict__ features_grad) {
  MRCNN_SHARED(Hit, list, kGatherThreads);
  MRCNN_SHARED(int, warp_counts, kGatherThreads / kWarp);
  const int64_t groups = (problem.channels + kGatherThreads - 1) / kGatherThreads, pixels = problem.pixels();
  for (int64_t item = blockIdx.x; item < problem.num_images * pixels * groups; item += gridDim.x) {
    const int64_t place = item / groups, channel = item % groups * kGatherThreads + threadIdx.x;
    const int32_t pixel = static_cast<int32_t>(place % pixels);
    const int y = static_cast<int>(pixel / problem.width), x = static_cast<int>(pixel % problem.width);
    A sum = 0;
    for (int64_t first = 0; first < problem.num_rois; first += kGatherThreads) {
      Hit hit{};
      const bool hits = find_hit(problem, first + threadIdx.x, place / pixels, y, x, hit);
      const int count = collect_hits(hits, hit, warp_counts, list);
      for (int index = 0; index < count && channel < problem.channels; ++index) {
        sum = add_hit(problem, list[index], grad, argmax, pixel, channel, sum);
      }
    }
    if (channel < problem.channels) store(sum, features_grad + place * problem.channels + channel);
  }
}

dim3 grid_of_threads(int64_t total) { return grid_for((total + kThreads - 1) / kThreads); }

template <int kWidth, typename T, typename A>
cudaError_t launch_channels(const Problem<A>& problem, const T* features, T* output, int32_t* argmax,
                            cudaStream_t stream) {
  const int64_t vectors = (problem.channels + kWidth - 1) / kWidth;
  const auto threads = static_cast<unsigned>(std::min<int64_t>((vectors + kWarp - 1) / kWarp * kWarp, kThreads));
  MRCNN_LAUNCH((forward_channels<kWidth, T, A>), grid_for(problem.num_rois * problem.bins()), dim3(threads), 0,
               stream, problem, features, output, argmax);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t forward_any(const Problem<A>& problem, const T* features, T* output, int32_t* argmax, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const int64_t total = problem.num_rois * problem.channels * problem.bins();
  if (total == 0) return cudaSuccess;
  if (problem.channels_last) {
    const bool aligned = problem.channels % kWidth == 0 && reinterpret_cast<uintptr_t>(features) % 16 == 0;
    return aligned ? launch_channels<kWidth>(problem, features, output, argmax, stream)
                   : launch_channels<1>(problem, features, output, argmax, stream);
  }
  MRCNN_LAUNCH((forward_planes<T, A>), grid_of_threads(total), dim3(kThreads), 0, stream, problem, features, output,
               argmax);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t scatter_any(const Problem<A>& problem, const T* grad, const int32_t* argmax, A* sums,
                        cudaStream_t stream) {
  const int64_t total = problem.num_rois * problem.channels * problem.bins();
  if (total == 0) return cudaSuccess;
  MRCNN_LAUNCH((scatter<T, A>), grid_of_threads(total), dim3(kThreads), 0, stream, problem, grad, argmax, sums);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t gather_any(const Problem<A>& problem, const T* grad, const int32_t* argmax, T* features_grad,
                       cudaStream_t stream) {
  const int64_t groups = (problem.channels + kGatherThreads - 1) / kGatherThreads;
  const int64_t items = problem.num_images * problem.pixels() * groups;
  if (items == 0) return cudaSuccess;
  MRCNN_LAUNCH((gather<T, A>), grid_for(items), dim3(kGatherThreads), 0, stream, problem, grad, argmax,
               features_grad);
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                                              \
  cudaError_t forward(const Problem<Accumulate<T>::type>& problem, const T* features, T* output, int32_t* argmax,    \
                      cudaStream_t stream) {                                                                         \
    return forward_any(problem, features, output, argmax, stream);                                                   \
  }                                                                                                                  \
  cudaError_t backward_atomic(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,     \
                              Accumulate<T>::type* sums, cudaStream_t stream) {                                      \
    return scatter_any(problem, grad, argmax, sums, stream);                                                         \
  }                                                                                                                  \
  cudaError_t backward_in_order(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,   \
                                T* features_grad, cudaStream_t stream) {                                             \
    return gather_any(problem, grad, argmax, features_grad, stream);                                                 \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_pool::cuda
