// The gradient of ROIAlign, tile by tile: the rois are sorted by image and level, then each tile walks those that reach
// it, in their order. Without atomics, so the result is the same to the last bit on every run.
#include "roi_align_weights.cuh"

namespace mrcnn::roi_align::cuda {

namespace {

constexpr int kOrderThreads = 1024;

// The rois of each image and level, by their index.
template <typename A>
struct Order {
  Entry<A>* entries;  // [R]
  Bounds* bounds;     // [R]
  Range* ranges;      // [N * L] entries of each image and level
};

// How many threads of the block before this one, and how many in all, bring true.
struct Rank {
  int before, all;
};

// Needs another barrier before it is called again, for the sake of `counts`, one number per warp.
template <int kSize>
__device__ __forceinline__ Rank rank(bool value, int* counts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const unsigned ballot = __ballot_sync(kAll, value);
  if (lane == 0) counts[warp] = __popc(ballot);
  __syncthreads();
  int before = __popc(ballot & ((1u << lane) - 1)), total = 0;
  for (int other = 0; other < kSize / kWarp; ++other) {
    before += other < warp ? counts[other] : 0;
    total += counts[other];
  }
  return {before, total};
}

// A block collects the rois of one image and level, in their order, behind those of all before.
template <typename A>
__global__ void __launch_bounds__(kOrderThreads, 1)
    sort_rois(const __grid_constant__ Problem<A> problem, Order<A> order) {
  MRCNN_SHARED(int, counts, kOrderThreads / kWarp);
  const int keys = problem.num_images * problem.num_levels;
  const auto key_of = [&](int64_t roi) {
    const Source source = roi < problem.num_rois ? source_of(problem, roi) : Source{-1, 0};
    return source.image < 0 ? keys : source.image * problem.num_levels + source.level;
  };
  for (int key = blockIdx.x; key < keys; key += static_cast<int>(gridDim.x)) {
    int begin = 0;
    for (int64_t first = 0; first < problem.num_rois; first += kOrderThreads) {
      begin += __syncthreads_count(key_of(first + threadIdx.x) < key);
    }
    int end = begin;
    for (int64_t first = 0; first < problem.num_rois; first += kOrderThreads) {
      const int64_t roi = first + threadIdx.x;
      const bool belongs = key_of(roi) == key;
      const Rank place = rank<kOrderThreads>(belongs, counts);
      if (belongs) {
        const Entry<A> entry = make_entry(problem, roi, key % problem.num_levels);
        order.entries[end + place.before] = entry;
        order.bounds[end + place.before] = bounds_of(problem, entry);
      }
      end += place.all;
      __syncthreads();
    }
    if (threadIdx.x == 0) order.ranges[key] = {begin, end};
  }
}

// Some channels of one tile of one image.
struct Job {
  int level, image, first_channel;
  Corner corner;
  Range entries;  // of the image and level
};

template <int kWidth, typename A>
__host__ __device__ __forceinline__ int64_t jobs_of(const Problem<A>& problem, int level) {
  const int64_t tiles = static_cast<int64_t>(divide_up(problem.levels[level].height, kTile)) *
                        divide_up(problem.levels[level].width, kTile);
  return tiles * problem.num_images * groups_of<kWidth>(problem.channels);
}

// Coarse levels come first, since their tiles have most rois; on each level an image follows the other, so that the
// gradients of its rois stay in the cache.
template <int kWidth, typename A>
__device__ __forceinline__ Job job_at(const Problem<A>& problem, const Order<A>& order, int64_t index) {
  int level = problem.num_levels - 1;
  for (; index >= jobs_of<kWidth>(problem, level); --level) index -= jobs_of<kWidth>(problem, level);
  const int groups = groups_of<kWidth>(problem.channels), tiles_x = divide_up(problem.levels[level].width, kTile);
  const int tiles = divide_up(problem.levels[level].height, kTile) * tiles_x;
  const int64_t tile = index / groups;
  const int image = static_cast<int>(tile / tiles), place = static_cast<int>(tile % tiles);
  return {level, image, static_cast<int>(index % groups) * kLanes * kWidth,
          {place / tiles_x * kTile, place % tiles_x * kTile}, order.ranges[image * problem.num_levels + level]};
}

template <int kWidth, typename T, typename A>
__device__ __forceinline__ void store_strip(const Problem<A>& problem, const Job& job, const Seat<kWidth>& seat,
                                            const A (&sums)[kStrip][kWidth], T* map) {
  const int height = problem.levels[job.level].height, width = problem.levels[job.level].width;
  const int channel = seat.channel(job.first_channel), x = job.corner.x + seat.column;
  if (channel >= problem.channels || x >= width) return;
  for (int k = 0; k < kStrip; ++k) {
    const int y = job.corner.y + seat.row + k;
    if (y >= height) break;
    Vector<T, kWidth> result;
    for (int c = 0; c < kWidth; ++c) store(sums[k][c], &result.values[c]);
    const int64_t pixel = (static_cast<int64_t>(job.image) * height + y) * width + x;
    store_vector(map + pixel * problem.channels + channel, result);
  }
}

// A block fills some channels of one tile: its threads look for the rois that reach the tile, kThreads at a time, then
// each walks them for its own pixels.
template <int kWidth, typename T, typename A>
__global__ void __launch_bounds__(kThreads, 3)
    gather(const __grid_constant__ Problem<A> problem, const __grid_constant__ Maps<T> maps, Order<A> order,
           int64_t num_jobs, const T* __restrict__ grad) {
  MRCNN_SHARED(Weights<A>, weights, 1);
  MRCNN_SHARED(Job, job, 1);
  MRCNN_SHARED(int, list, kThreads);
  MRCNN_SHARED(int, counts, kThreads / kWarp);
  const Seat<kWidth> seat;
  for (int64_t index = blockIdx.x; index < num_jobs; index += gridDim.x) {
    if (threadIdx.x == 0) job[0] = job_at<kWidth>(problem, order, index);
    __syncthreads();
    const int channel = seat.channel(job[0].first_channel);
    const T* values = grad + (channel < problem.channels ? channel : 0);
    A sums[kStrip][kWidth] = {};
    for (int part = 0; part < windows_of(problem); ++part) {
      const Window window = window_at(problem, part);
      for (int start = job[0].entries.begin; start < job[0].entries.end; start += kThreads) {
        const int candidate = start + static_cast<int>(threadIdx.x);
        const bool hit = candidate < job[0].entries.end && order.bounds[candidate].overlaps(job[0].corner);
        const Rank place = rank<kThreads>(hit, counts);
        if (hit) list[place.before] = candidate;
        __syncthreads();
        for (int first = 0; first < place.all; first += kBatch) {
          const int count = min(kBatch, place.all - first);
          const auto entry_of = [&](int pair) -> const Entry<A>& { return order.entries[list[first + pair]]; };
          weigh(problem, window, count, entry_of, [&](int) { return job[0].corner; }, weights[0]);
          __syncthreads();
          for (int pair = 0; pair < count; ++pair) {
            const int64_t roi = entry_of(pair).roi;
            add_roi(problem, weights[0], pair, seat, values + roi * problem.bins() * problem.channels, sums);
          }
          __syncthreads();
        }
      }
    }
    store_strip(problem, job[0], seat, sums, maps.levels[job[0].level]);
    __syncthreads();
  }
}

int64_t round_up(int64_t bytes) { return (bytes + 15) / 16 * 16; }

template <int kWidth, typename T, typename A>
cudaError_t launch(const Problem<A>& problem, const T* grad, const Maps<T>& maps, const Order<A>& order,
                   cudaStream_t stream) {
  int64_t jobs = 0;
  for (int level = 0; level < problem.num_levels; ++level) jobs += jobs_of<kWidth>(problem, level);
  MRCNN_LAUNCH((gather<kWidth, T, A>), grid_for(jobs), dim3(kThreads), 0, stream, problem, maps, order, jobs, grad);
  return MRCNN_CHECK_LAUNCH();
}

template <typename T, typename A>
cudaError_t gather_any(const Problem<A>& problem, const T* grad, const Maps<T>& maps, void* workspace,
                       cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  if (problem.channels == 0 || problem.num_images == 0) return cudaSuccess;
  char* const memory = static_cast<char*>(workspace);
  const int64_t entries_end = round_up(problem.num_rois * static_cast<int64_t>(sizeof(Entry<A>)));
  const int64_t bounds_end = entries_end + problem.num_rois * static_cast<int64_t>(sizeof(Bounds));
  const Order<A> order{reinterpret_cast<Entry<A>*>(memory), reinterpret_cast<Bounds*>(memory + entries_end),
                       reinterpret_cast<Range*>(memory + bounds_end)};
  const dim3 keys = grid_for(static_cast<int64_t>(problem.num_images) * problem.num_levels);
  MRCNN_LAUNCH(sort_rois<A>, keys, dim3(kOrderThreads), 0, stream, problem, order);
  bool vectors = problem.channels % kWidth == 0 && reinterpret_cast<uintptr_t>(grad) % 16 == 0;
  for (int level = 0; level < problem.num_levels; ++level) {
    vectors = vectors && reinterpret_cast<uintptr_t>(maps.levels[level]) % 16 == 0;
  }
  return vectors ? launch<kWidth>(problem, grad, maps, order, stream) : launch<1>(problem, grad, maps, order, stream);
}

}  // namespace

template <typename A>
int64_t workspace_bytes(const Problem<A>& problem) {
  return round_up(problem.num_rois * static_cast<int64_t>(sizeof(Entry<A>))) +
         problem.num_rois * static_cast<int64_t>(sizeof(Bounds)) +
         static_cast<int64_t>(problem.num_images) * problem.num_levels * static_cast<int64_t>(sizeof(Range));
}
template int64_t workspace_bytes(const Problem<float>&);
template int64_t workspace_bytes(const Problem<double>&);

#define MRCNN_DEFINE(T)                                                                                          \
  cudaError_t backward_in_order(const Problem<Accumulate<T>::type>& problem, const T* grad, const Maps<T>& maps, \
                                void* workspace, cudaStream_t stream) {                                          \
    return gather_any(problem, grad, maps, workspace, stream);                                                   \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_align::cuda
