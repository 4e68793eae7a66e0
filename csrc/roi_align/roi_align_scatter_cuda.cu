// The gradient of ROIAlign, roi by roi: each adds to the tiles that it reaches, with atomics.
#include "roi_align_weights.cuh"

namespace mrcnn::roi_align::cuda {

namespace {

// Some channels of one roi, and the tiles that cover the pixels it reaches.
template <typename A>
struct Job {
  Entry<A> entry;
  Corner first;        // tile
  int tiles_x, tiles;  // in a row, and in all
  int level, first_channel;
  int64_t map_begin;  // the first pixel of the image, at the first channel

  __device__ Corner corner(int tile) const {
    return {first.y + tile / tiles_x * kTile, first.x + tile % tiles_x * kTile};
  }
};

template <int kWidth, typename A>
__device__ __forceinline__ Job<A> job_at(const Problem<A>& problem, int64_t index) {
  const int groups = groups_of<kWidth>(problem.channels);
  const int64_t roi = index / groups;
  const Source source = source_of(problem, roi);
  const Entry<A> entry = make_entry(problem, roi, source.level);
  const Bounds bounds = bounds_of(problem, entry);
  const int first_channel = static_cast<int>(index % groups) * kLanes * kWidth;
  const int tiles_x = divide_up(bounds.right - bounds.left, kTile);
  const int tiles_y = divide_up(bounds.bottom - bounds.top, kTile);
  const int64_t pixels = static_cast<int64_t>(entry.y.extent) * entry.x.extent;
  return {entry,         {bounds.top, bounds.left}, tiles_x, source.image < 0 ? 0 : tiles_x * tiles_y, source.level,
          first_channel, source.image * pixels * problem.channels + first_channel};
}

// Adds the sums of a warp, two strips side by side, to a map with atomics. Its lanes swap vectors of channels for
// neighbouring ones through `buffer`, so that an instruction meets whole lines.
template <int kWidth, typename A>
__device__ __forceinline__ void add_to_map(const Problem<A>& problem, const Weights<A>& weights, int pair,
                                           const Job<A>& job, Corner corner, const A (&sums)[kStrip][kWidth], A* buffer,
                                           A* map) {
  constexpr int kChannels = kLanes * kWidth;
  const Seat<kWidth> seat;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, column = seat.column - lane / kLanes;
  const int channels = min(problem.channels - job.first_channel, kChannels);
  for (int k = 0; k < kStrip; ++k) {
    for (int c = 0; c < kWidth; ++c) buffer[lane * kWidth + c] = sums[k][c];
    __syncwarp();
    const int64_t pixel = static_cast<int64_t>(corner.y + seat.row + k) * job.entry.x.extent + corner.x + column;
    for (int side = 0; side < kWarp / kLanes; ++side) {
      if (weights.bins[pair][0][seat.row + k] == 0 || weights.bins[pair][1][column + side] == 0) continue;
      A* const destination = map + job.map_begin + (pixel + side) * problem.channels;
      for (int c = lane; c < channels; c += kWarp) atomicAdd(destination + c, buffer[side * kChannels + c]);
    }
    __syncwarp();
  }
}

// A block adds some channels of one roi to the sums, tile by tile.
template <int kWidth, typename T, typename A>
__global__ void __launch_bounds__(kThreads, 2)
    scatter(const __grid_constant__ Problem<A> problem, const __grid_constant__ Maps<A> sums,
            const T* __restrict__ grad) {
  MRCNN_SHARED(Weights<A>, weights, 1);
  MRCNN_SHARED(Job<A>, job, 1);
  MRCNN_SHARED(A, buffers, kThreads * kWidth);
  A* const buffer = buffers + threadIdx.x / kWarp * kWarp * kWidth;
  const Seat<kWidth> seat;
  const int64_t num_jobs = problem.num_rois * groups_of<kWidth>(problem.channels);
  for (int64_t index = blockIdx.x; index < num_jobs; index += gridDim.x) {
    if (threadIdx.x == 0) job[0] = job_at<kWidth>(problem, index);
    __syncthreads();
    const int channel = seat.channel(job[0].first_channel);
    const T* values = grad + static_cast<int64_t>(job[0].entry.roi) * problem.bins() * problem.channels +
                      (channel < problem.channels ? channel : 0);
    for (int bins = 0; bins < windows_of(problem); ++bins) {
      const Window window = window_at(problem, bins);
      for (int first = 0; first < job[0].tiles; first += kBatch) {
        const int count = min(kBatch, job[0].tiles - first);
        const auto corner_of = [&](int pair) { return job[0].corner(first + pair); };
        weigh(problem, window, count, [&](int) -> const Entry<A>& { return job[0].entry; }, corner_of, weights[0]);
        __syncthreads();
        for (int pair = 0; pair < count; ++pair) {
          A part[kStrip][kWidth] = {};
          add_roi(problem, weights[0], pair, seat, values, part);
          add_to_map(problem, weights[0], pair, job[0], corner_of(pair), part, buffer, sums.levels[job[0].level]);
        }
        __syncthreads();
      }
    }
    __syncthreads();
  }
}

template <int kWidth, typename T, typename A>
cudaError_t launch(const Problem<A>& problem, const T* grad, const Maps<A>& sums, cudaStream_t stream) {
  const dim3 grid = grid_for(problem.num_rois * groups_of<kWidth>(problem.channels));
  MRCNN_LAUNCH((scatter<kWidth, T, A>), grid, dim3(kThreads), 0, stream, problem, sums, grad);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t scatter_any(const Problem<A>& problem, const T* grad, const Maps<A>& sums, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (problem.num_rois == 0 || problem.channels == 0 || problem.num_images == 0) return cudaSuccess;
  const bool vectors = problem.channels % kWidth == 0 && reinterpret_cast<uintptr_t>(grad) % 16 == 0;
  return vectors ? launch<kWidth>(problem, grad, sums, stream) : launch<1>(problem, grad, sums, stream);
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                      \
  cudaError_t backward_atomic(const Problem<Accumulate<T>::type>& problem, const T* grad,    \
                              const Maps<Accumulate<T>::type>& sums, cudaStream_t stream) { \
    return scatter_any(problem, grad, sums, stream);                                         \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_align::cuda
