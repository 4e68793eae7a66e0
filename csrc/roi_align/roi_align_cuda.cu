#include "roi_align_cuda.h"

#include <algorithm>

#include "roi_align_geometry.cuh"

namespace mrcnn::roi_align::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kMaxSamples = 128;  // of both axes of a roi that are kept in shared memory
constexpr int64_t kManyBlocks = 2048;  // enough for every multiprocessor of a large GPU
// Blocks on one multiprocessor: as many as leave the registers for all loads of two samples at once.
template <typename A>
constexpr int kResident = sizeof(A) == 8 ? 4 : 6;

// The four pixels around one sample, times their weights. With channels last a pixel is `stride` values from the next,
// and a thread does kWidth channels of it; else kWidth is 1 and so is the stride.
template <int kWidth, typename T, typename A>
__device__ __forceinline__ void add_sample(const T* plane, int stride, int width, const Sample<A>& y,
                                           const Sample<A>& x, A (&sum)[kWidth]) {
  // A sample outside is read too, at a pixel that is there, and left out at the end: no branch holds up the loads.
  const bool inside = y.low >= 0 && x.low >= 0;
  const int top = max(y.low, 0) * width, bottom = max(y.high, 0) * width, left = max(x.low, 0), right = max(x.high, 0);
  const Vector<T, kWidth> v1 = load_vector<kWidth>(plane + static_cast<int64_t>(top + left) * stride);
  const Vector<T, kWidth> v2 = load_vector<kWidth>(plane + static_cast<int64_t>(top + right) * stride);
  const Vector<T, kWidth> v3 = load_vector<kWidth>(plane + static_cast<int64_t>(bottom + left) * stride);
  const Vector<T, kWidth> v4 = load_vector<kWidth>(plane + static_cast<int64_t>(bottom + right) * stride);
  const A w1 = y.low_weight * x.low_weight, w2 = y.low_weight * x.high_weight;
  const A w3 = y.high_weight * x.low_weight, w4 = y.high_weight * x.high_weight;
  for (int c = 0; c < kWidth; ++c) {
    const A upper = w1 * load(v1.values[c]) + w2 * load(v2.values[c]);
    const A value = upper + w3 * load(v3.values[c]) + w4 * load(v4.values[c]);
    sum[c] += inside ? value : A(0);
  }
}

// One bin of a roi with any number of samples, which are worked out on the way.
template <int kWidth, typename T, typename A>
__device__ __forceinline__ void pool_bin(const T* plane, int stride, const Place<A>& place, int row, int column,
                                         A (&sum)[kWidth]) {
  const int first = place.x.first_step(column, A(-1));
  for (int step_y = place.y.first_step(row, A(-1)); step_y < place.y.grid; ++step_y) {
    const Sample<A> y = place.y.sample(row, step_y);
    if (y.low < 0) break;
    for (int step_x = first; step_x < place.x.grid; ++step_x) {
      const Sample<A> x = place.x.sample(column, step_x);
      if (x.low < 0) break;
      add_sample(plane, stride, place.x.extent, y, x, sum);
    }
  }
}

// A block pools one roi, or one of `parts` of it. With kRatio samples per bin and axis, their places and weights are
// worked out once for all channels; with kRatio = 0 their number is the problem's.
template <int kWidth, int kRatio, typename T, typename A>
__global__ void __launch_bounds__(kThreads, kResident<A>)
    pool(const __grid_constant__ Problem<A> problem, const __grid_constant__ Maps<const T> maps, bool channels_last,
         int parts, T* __restrict__ output) {
  MRCNN_SHARED(Sample<A>, samples, kRatio > 0 ? kMaxSamples : 1);  // of y, then of x
  const int bins = problem.bins(), vectors = problem.channels / kWidth, rows = problem.pooled_height * kRatio;
  const int share = (bins * vectors + parts - 1) / parts;
  for (int64_t item = blockIdx.x; item < problem.num_rois * parts; item += gridDim.x) {
    const int64_t roi = item / parts;
    const Source source = source_of(problem, roi);
    const Place<A> place(problem, roi, source.level);
    if constexpr (kRatio > 0) {
      for (int index = threadIdx.x; index < rows + problem.pooled_width * kRatio; index += kThreads) {
        samples[index] = index < rows ? place.y.sample(index / kRatio, index % kRatio)
                                      : place.x.sample((index - rows) / kRatio, index % kRatio);
      }
      __syncthreads();
    }
    const int64_t pixels = static_cast<int64_t>(place.y.extent) * place.x.extent;
    const T* image = maps.levels[source.level] + source.image * pixels * problem.channels;
    const int begin = static_cast<int>(item % parts) * share, end = min(begin + share, bins * vectors);
    for (int index = begin + static_cast<int>(threadIdx.x); index < end; index += kThreads) {
      const int bin = channels_last ? index / vectors : index % bins;
      const int channel = channels_last ? index % vectors * kWidth : index / bins;
      const int row = bin / problem.pooled_width, column = bin % problem.pooled_width;
      A sum[kWidth] = {};
      if (source.image >= 0) {
        const T* plane = image + (channels_last ? channel : channel * pixels);
        const int stride = channels_last ? problem.channels : 1;
        if constexpr (kRatio > 0) {
          for (int iy = 0; iy < kRatio; ++iy) {
            for (int ix = 0; ix < kRatio; ++ix) {
              const Sample<A>&y = samples[row * kRatio + iy], &x = samples[rows + column * kRatio + ix];
              add_sample(plane, stride, place.x.extent, y, x, sum);
            }
          }
        } else {
          pool_bin(plane, stride, place, row, column, sum);
        }
      }
      const A count = kRatio > 0 ? A(kRatio * kRatio) : place.samples_per_bin();
      Vector<T, kWidth> result;
      for (int c = 0; c < kWidth; ++c) store(sum[c] / count, &result.values[c]);
      store_vector(output + roi * bins * problem.channels + static_cast<int64_t>(index) * kWidth, result);
    }
    if constexpr (kRatio > 0) __syncthreads();
  }
}

template <int kWidth, int kRatio, typename T, typename A>
cudaError_t launch(const Problem<A>& problem, const Maps<const T>& maps, bool channels_last, T* output,
                   cudaStream_t stream) {
  const int64_t vectors = static_cast<int64_t>(problem.bins()) * (problem.channels / kWidth);
  const int64_t most = (vectors + kThreads - 1) / kThreads;
  const int64_t parts = std::min(most, (kManyBlocks + problem.num_rois - 1) / problem.num_rois);
  const dim3 grid = grid_for(problem.num_rois * parts);
  MRCNN_LAUNCH((pool<kWidth, kRatio, T, A>), grid, dim3(kThreads), 0, stream, problem, maps, channels_last,
               static_cast<int>(parts), output);
  return MRCNN_CHECK_LAUNCH();
}

template <int kWidth, typename T, typename A>
cudaError_t launch_ratio(const Problem<A>& problem, const Maps<const T>& maps, bool channels_last, T* output,
                         cudaStream_t stream) {
  const bool fits = problem.pooled_height + problem.pooled_width <= kMaxSamples / 2;
  return problem.sampling_ratio == 2 && fits ? launch<kWidth, 2>(problem, maps, channels_last, output, stream)
                                             : launch<kWidth, 0>(problem, maps, channels_last, output, stream);
}

template <typename T, typename A>
cudaError_t forward_any(const Problem<A>& problem, const Maps<const T>& maps, bool channels_last, T* output,
                        cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (problem.num_rois == 0 || problem.channels == 0) return cudaSuccess;
  bool vectors = channels_last && problem.channels % kWidth == 0 && reinterpret_cast<uintptr_t>(output) % 16 == 0;
  for (int level = 0; level < problem.num_levels; ++level) {
    vectors = vectors && reinterpret_cast<uintptr_t>(maps.levels[level]) % 16 == 0;
  }
  return vectors ? launch_ratio<kWidth>(problem, maps, channels_last, output, stream)
                 : launch_ratio<1>(problem, maps, channels_last, output, stream);
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                                           \
  cudaError_t forward(const Problem<Accumulate<T>::type>& problem, const Maps<const T>& maps, bool channels_last, \
                      T* output, cudaStream_t stream) {                                                           \
    return forward_any(problem, maps, channels_last, output, stream);                                             \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_align::cuda
