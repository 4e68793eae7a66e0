#include "match_cuda.h"

#include <algorithm>
#include <limits>

#include "../common/overlap.cuh"

namespace mrcnn::match::cuda {

namespace {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kThreads = 128;
constexpr int kTiles = kThreads / kWarp;
constexpr int kSlots = kChunk / kThreads;  // boxes of a thread
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Around no box: apart from every other.
constexpr Corners kNowhereAtAll = {{kInfinity, kInfinity, -kInfinity, -kInfinity}};

// Where one thread stands: image, chunk, and its first box. The boxes of a thread are a warp apart and those of a warp
// stand together, so that they are neighbours on the map too.
struct Place {
  int64_t image, chunk, first;

  __device__ __forceinline__ Place(const Problem& problem, int64_t item)
      : image(item / problem.num_chunks()), chunk(item % problem.num_chunks()) {
    first = chunk * kChunk + threadIdx.x / kWarp * (kWarp * kSlots) + threadIdx.x % kWarp;
  }

  __device__ __forceinline__ int64_t box(int slot) const { return first + slot * kWarp; }
};

__device__ __forceinline__ Corners load_box(const Problem& problem, const Place& place, int slot) {
  if (place.box(slot) >= problem.num_boxes) return kNowhereAtAll;
  return load_vector<4>(problem.boxes + place.image * problem.image_stride + place.box(slot) * 4);
}

// Where a ground truth stands among those of all images; the last one for those behind it.
__device__ __forceinline__ int64_t slot_of(const Problem& problem, const Place& place, int64_t truth) {
  return place.image * problem.num_truths + min(truth, problem.num_truths - 1);
}

// Up to kThreads ground truths in shared memory.
struct Truths {
  Corners* corners;  // [kThreads]
  float* areas;      // [kThreads]
  uint32_t* words;   // [kTiles] which of them count

  // All threads of the block store one each. Nothing branches, so that loads overlap.
  __device__ __forceinline__ void store(const Problem& problem, int64_t slot, bool counts) const {
    const Corners box = load_vector<4>(problem.gt_boxes + slot * 4);
    corners[threadIdx.x] = box;
    areas[threadIdx.x] = area_of(box.values, problem.offset);
    const uint32_t word = __ballot_sync(kAllLanes, counts);
    if (threadIdx.x % kWarp == 0) words[threadIdx.x / kWarp] = word;
  }
};

// The boxes of one thread and the best ground truth of each so far.
struct Boxes {
  Corners corners[kSlots];
  float areas[kSlots];
  float best_iou[kSlots];
  int32_t best[kSlots];  // slot, or -1 where no IoU is above 0

  __device__ __forceinline__ Boxes(const Problem& problem, const Place& place) {
    for (int slot = 0; slot < kSlots; ++slot) {
      corners[slot] = load_box(problem, place, slot);
      areas[slot] = area_of(corners[slot].values, problem.offset);
      best_iou[slot] = 0;
      best[slot] = -1;
    }
  }

  // The box around those of the whole warp.
  __device__ __forceinline__ Corners around() const {
    Corners result = kNowhereAtAll;
    for (int side = 0; side < 4; ++side) {
      float& value = result.values[side];
      for (int slot = 0; slot < kSlots; ++slot) {
        const float own = corners[slot].values[side];
        value = side < 2 ? fminf(value, own) : fmaxf(value, own);
      }
      for (int step = kWarp / 2; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, value, step);
        value = side < 2 ? fminf(value, other) : fmaxf(value, other);
      }
    }
    return result;
  }

  // Takes a ground truth into account, later than those of lower slots. Returns its best IoU.
  __device__ __forceinline__ float offer(const Corners& truth, float area, int32_t truth_slot, float offset) {
    float highest = 0;
    for (int slot = 0; slot < kSlots; ++slot) {
      const float iou = overlap(corners[slot], areas[slot], truth, area, offset);
      if (iou > best_iou[slot]) {
        best_iou[slot] = iou;
        best[slot] = truth_slot;
      }
      highest = fmaxf(highest, iou);
    }
    return highest;
  }
};

// Whether the IoU of any box inside `around` with this one can be above 0. Rounding is monotonic, so what holds for the
// box around them holds for each.
__device__ __forceinline__ bool may_meet(const Corners& around, const Corners& box, float offset) {
  return shared_width(around, box, offset) > 0.0f && shared_height(around, box, offset) > 0.0f;
}

__device__ __forceinline__ void write_matches(const Problem& problem, const Place& place, const Boxes& boxes,
                                              int32_t first_valid, int32_t* best, int64_t* matches) {
  for (int slot = 0; slot < kSlots; ++slot) {
    if (place.box(slot) >= problem.num_boxes) return;
    const int64_t index = place.image * problem.num_boxes + place.box(slot);
    const int32_t own_best = boxes.best[slot] < 0 ? first_valid : boxes.best[slot];
    const bool below = first_valid < 0 || boxes.best_iou[slot] < problem.low;
    matches[index] = below ? -1 : boxes.best_iou[slot] < problem.high ? -2 : own_best;
    if (best != nullptr) best[index] = own_best;
  }
}

// A block does one chunk of boxes of one image. A warp tests 32 ground truths at a time, one a lane, against the box
// around all of its own, and only looks at those that may meet it.
__global__ void __launch_bounds__(kThreads)
    find_best(Problem problem, Scratch scratch, int64_t* __restrict__ matches) {
  MRCNN_SHARED(Corners, corners, kThreads);
  MRCNN_SHARED(float, areas, kThreads);
  MRCNN_SHARED(uint32_t, valid_words, kTiles);
  MRCNN_SHARED(uint32_t, highest, kThreads);  // bits of each ground truth's best IoU in this chunk
  const Truths truths{corners, areas, valid_words};
  const int lane = threadIdx.x % kWarp;
  for (int64_t item = blockIdx.x; item < problem.num_images * problem.num_chunks(); item += gridDim.x) {
    const Place place(problem, item);
    Boxes boxes(problem, place);
    int32_t first_valid = -1;
    for (int64_t base = 0; base < problem.num_truths; base += kThreads) {
      const int64_t own = base + threadIdx.x, own_slot = slot_of(problem, place, own);
      truths.store(problem, own_slot, own < problem.num_truths && problem.gt_valid[own_slot]);
      highest[threadIdx.x] = 0;
      __syncthreads();
      const Corners around = boxes.around();
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint32_t valid = valid_words[tile];
        const int32_t first_slot = static_cast<int32_t>(base) + tile * kWarp;
        if (first_valid < 0 && valid != 0) first_valid = first_slot + __ffs(static_cast<int>(valid)) - 1;
        const bool meets = (valid >> lane & 1) && may_meet(around, corners[tile * kWarp + lane], problem.offset);
        for (uint32_t left = __ballot_sync(kAllLanes, meets); left != 0; left &= left - 1) {
          const int bit = __ffs(static_cast<int>(left)) - 1, index = tile * kWarp + bit;
          const float iou = boxes.offer(corners[index], areas[index], first_slot + bit, problem.offset);
          // The bits of floats that are not negative are in the order of their values.
          if (scratch.best != nullptr && iou > 0.0f) atomicMax(highest + index, __float_as_uint(iou));
        }
      }
      __syncthreads();
      if (scratch.best != nullptr && own < problem.num_truths) {
        scratch.chunk_best[item * problem.num_truths + own] = highest[threadIdx.x];
        if (highest[threadIdx.x] != 0) atomicMax(scratch.gt_best + own_slot, highest[threadIdx.x]);
      }
    }
    write_matches(problem, place, boxes, first_valid, scratch.best, matches);
  }
}

// Whether one box has the wanted IoU with one of the ground truths that count.
__device__ __forceinline__ bool attains(const Corners& box, const Truths& truths, const float* wanted, float offset) {
  const float area = area_of(box.values, offset);
  bool found = false;
  for (int tile = 0; tile < kTiles; ++tile) {
    for (uint32_t left = truths.words[tile]; left != 0; left &= left - 1) {
      const int index = tile * kWarp + __ffs(static_cast<int>(left)) - 1;
      found = found || overlap(box, area, truths.corners[index], truths.areas[index], offset) == wanted[index];
    }
  }
  return found;
}

// Gives the boxes that attain a ground truth's best IoU their own best match back. A block does one chunk of one image.
__global__ void __launch_bounds__(kThreads)
    restore_low_quality(Problem problem, Scratch scratch, int64_t* __restrict__ matches) {
  MRCNN_SHARED(Corners, corners, kThreads);
  MRCNN_SHARED(float, areas, kThreads);
  MRCNN_SHARED(float, wanted, kThreads);
  MRCNN_SHARED(uint32_t, reached_words, kTiles);
  const Truths truths{corners, areas, reached_words};
  for (int64_t item = blockIdx.x; item < problem.num_images * problem.num_chunks(); item += gridDim.x) {
    const Place place(problem, item);
    for (int64_t base = 0; base < problem.num_truths; base += kThreads) {
      const int64_t own = base + threadIdx.x, own_slot = slot_of(problem, place, own);
      const bool counts = own < problem.num_truths && problem.gt_valid[own_slot];
      const uint32_t most = counts ? scratch.gt_best[own_slot] : 0;
      const bool reached = counts && scratch.chunk_best[item * problem.num_truths + own] == most;
      if (!__syncthreads_or(reached)) continue;
      truths.store(problem, own_slot, reached);
      wanted[threadIdx.x] = __uint_as_float(most);
      __syncthreads();
      for (int slot = 0; slot < kSlots && place.box(slot) < problem.num_boxes; ++slot) {
        if (!attains(load_box(problem, place, slot), truths, wanted, problem.offset)) continue;
        const int64_t index = place.image * problem.num_boxes + place.box(slot);
        matches[index] = scratch.best[index];
      }
    }
  }
}

}  // namespace

cudaError_t match_boxes(const Problem& problem, const Scratch& scratch, int64_t* matches, cudaStream_t stream) {
  const int64_t num_items = problem.num_images * problem.num_chunks();
  if (num_items == 0) return cudaSuccess;
  const dim3 grid = grid_for(num_items);
  const bool low_quality = scratch.best != nullptr;
  if (low_quality && problem.num_truths > 0) {
    const size_t bytes = static_cast<size_t>(problem.num_images * problem.num_truths) * sizeof(uint32_t);
    const cudaError_t status = cudaMemsetAsync(scratch.gt_best, 0, bytes, stream);
    if (status != cudaSuccess) return status;
  }
  MRCNN_LAUNCH(find_best, grid, dim3(kThreads), 0, stream, problem, scratch, matches);
  if (low_quality) MRCNN_LAUNCH(restore_low_quality, grid, dim3(kThreads), 0, stream, problem, scratch, matches);
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace mrcnn::match::cuda
