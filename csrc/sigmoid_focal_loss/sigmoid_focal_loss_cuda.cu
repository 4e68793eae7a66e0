#include "focal_math.h"
#include "sigmoid_focal_loss_cuda.h"

namespace mrcnn::sigmoid_focal_loss::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr uint32_t kAllLanes = 0xffffffffu;

template <typename T>
constexpr int kWidth = 16 / sizeof(T);  // logits that are read at once

// Which logit stands where: walks along the rows, one place at a time.
template <typename T>
class Walker {
 public:
  // `start` is the first place of a chunk, which all threads share, and `offset` lies within it.
  __device__ Walker(const Problem<T>& problem, int64_t start, int offset) : problem_(problem) {
    const uint32_t width = static_cast<uint32_t>(problem.num_classes);
    const uint32_t ahead = static_cast<uint32_t>(start % problem.num_classes) + static_cast<uint32_t>(offset);
    row_ = start / problem.num_classes + ahead / width;
    column_ = ahead % width;
    look();
  }

  __device__ bool is_positive() const { return column_ + 1 == target_; }
  __device__ bool is_ignored() const { return target_ < 0; }

  __device__ void step() {
    if (++column_ < problem_.num_classes) return;
    column_ = 0;
    ++row_;
    look();
  }

 private:
  __device__ void look() { target_ = row_ < problem_.num_rows ? problem_.targets[row_] : -1; }

  const Problem<T>& problem_;
  int64_t row_, column_, target_;
};

// The terms of one logit.
template <bool kSquared, typename T, typename A>
__device__ __forceinline__ Terms<A> terms_at(const Walker<T>& walker, A logit, A gamma) {
  const A margin = walker.is_ignored() ? kIgnored<A> : walker.is_positive() ? logit : -logit;
  return terms_of<kSquared>(margin, gamma);
}

// Up to kWidth logits from `place` on; the last ones of all are read one by one.
template <typename T>
__device__ __forceinline__ Vector<T, kWidth<T>> read(const Problem<T>& problem, int64_t place, int count) {
  if (count == kWidth<T>) return load_vector<kWidth<T>>(problem.logits + place);
  Vector<T, kWidth<T>> values{};
  for (int lane = 0; lane < count; ++lane) values.values[lane] = problem.logits[place + lane];
  return values;
}

template <typename T>
__device__ __forceinline__ int count_at(const Problem<T>& problem, int64_t place) {
  return static_cast<int>(max(min(problem.size() - place, static_cast<int64_t>(kWidth<T>)), static_cast<int64_t>(0)));
}

// The sum over the block, in a fixed order; valid in the first thread. All threads of the block.
__device__ __forceinline__ double add_up(double value) {
  MRCNN_SHARED(double, partial, kWarps);
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_down_sync(kAllLanes, value, lanes);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp];
  __syncthreads();
  return sum;
}

template <bool kSquared, typename T>
__global__ void __launch_bounds__(kThreads) sum_chunks(Problem<T> problem, double* __restrict__ sums) {
  using A = typename Accumulate<T>::type;
  const A gamma = static_cast<A>(problem.gamma);
  for (int64_t chunk = blockIdx.x; chunk < problem.num_chunks(); chunk += gridDim.x) {
    A positives = 0, others = 0;
    for (int offset = threadIdx.x * kWidth<T>; offset < kChunk; offset += kThreads * kWidth<T>) {
      const int64_t place = chunk * kChunk + offset;
      const int count = count_at(problem, place);
      if (count == 0) break;
      const Vector<T, kWidth<T>> logits = read(problem, place, count);
      Walker<T> walker(problem, chunk * kChunk, offset);
      for (int lane = 0; lane < count; ++lane, walker.step()) {
        const A loss = terms_at<kSquared>(walker, load(logits.values[lane]), gamma).loss();
        (walker.is_positive() ? positives : others) += loss;
      }
    }
    const double sum = add_up(problem.alpha * static_cast<double>(positives) +
                              (1 - problem.alpha) * static_cast<double>(others));
    if (threadIdx.x == 0) sums[chunk] = sum;
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads) finish(const double* __restrict__ sums, int64_t count, A* output) {
  double value = 0;
  for (int64_t chunk = threadIdx.x; chunk < count; chunk += kThreads) value += sums[chunk];
  const double sum = add_up(value);
  if (threadIdx.x == 0) *output = static_cast<A>(sum);
}

// A logit that grows makes the loss of the true class smaller, and of another one larger.
template <bool kSquared, typename T>
__global__ void __launch_bounds__(kThreads)
    differentiate(Problem<T> problem, const typename Accumulate<T>::type* __restrict__ grad, T* __restrict__ gradient) {
  using A = typename Accumulate<T>::type;
  const A gamma = static_cast<A>(problem.gamma);
  const double scale = static_cast<double>(*grad);
  const A up = static_cast<A>((1 - problem.alpha) * scale), down = static_cast<A>(-problem.alpha * scale);
  for (int64_t chunk = blockIdx.x; chunk < problem.num_chunks(); chunk += gridDim.x) {
    for (int offset = threadIdx.x * kWidth<T>; offset < kChunk; offset += kThreads * kWidth<T>) {
      const int64_t place = chunk * kChunk + offset;
      const int count = count_at(problem, place);
      if (count == 0) break;
      Vector<T, kWidth<T>> values = read(problem, place, count);
      Walker<T> walker(problem, chunk * kChunk, offset);
      for (int lane = 0; lane < count; ++lane, walker.step()) {
        const A slope = terms_at<kSquared>(walker, load(values.values[lane]), gamma).slope(gamma);
        store((walker.is_positive() ? down : up) * slope, &values.values[lane]);
      }
      if (count == kWidth<T>) {
        store_vector(gradient + place, values);
      } else {
        for (int lane = 0; lane < count; ++lane) gradient[place + lane] = values.values[lane];
      }
    }
  }
}

template <typename T>
cudaError_t launch_forward(const Problem<T>& problem, double* sums, typename Accumulate<T>::type* output,
                           cudaStream_t stream) {
  const int64_t count = problem.num_chunks();
  if (count > 0) {
    const auto kernel = problem.gamma == 2 ? sum_chunks<true, T> : sum_chunks<false, T>;
    MRCNN_LAUNCH(kernel, grid_for(count), dim3(kThreads), 0, stream, problem, sums);
  }
  MRCNN_LAUNCH(finish<typename Accumulate<T>::type>, dim3(1), dim3(kThreads), 0, stream, sums, count, output);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T>
cudaError_t launch_backward(const Problem<T>& problem, const typename Accumulate<T>::type* grad, T* gradient,
                            cudaStream_t stream) {
  if (problem.size() == 0) return cudaSuccess;
  const auto kernel = problem.gamma == 2 ? differentiate<true, T> : differentiate<false, T>;
  MRCNN_LAUNCH(kernel, grid_for(problem.num_chunks()), dim3(kThreads), 0, stream, problem, grad, gradient);
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                                                \
  cudaError_t forward(const Problem<T>& problem, double* sums, Accumulate<T>::type* output, cudaStream_t stream) {     \
    return launch_forward(problem, sums, output, stream);                                                              \
  }                                                                                                                    \
  cudaError_t backward(const Problem<T>& problem, const Accumulate<T>::type* grad, T* gradient, cudaStream_t stream) { \
    return launch_backward(problem, grad, gradient, stream);                                                           \
  }

MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::sigmoid_focal_loss::cuda
