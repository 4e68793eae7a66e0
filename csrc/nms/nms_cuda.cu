#include "nms_cuda.h"

#include <algorithm>

#include "../common/overlap.cuh"

namespace mrcnn::nms::cuda {

namespace {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kGroup = 128;  // boxes that a block compares with as many others
constexpr int kGroupTiles = kGroup / kWarp;
constexpr int kWalkThreads = 1024;             // at most
constexpr int kSlots = kStrip / kWalkThreads;  // boxes of a thread of walk
constexpr int kAhead = 8;                      // tiles whose mask words are under way while as many are worked off

// Boxes [first, first + count) of each row, in tiles of kWarp. The mask of a row has a word for each tile and each of
// kStrip boxes: bit i of word (t, j) says that box j goes if box i of tile t is kept. Only the tiles up to a box's own
// are written, of that one only the boxes before it, and nothing between boxes that are all struck out.
struct Strip {
  int64_t first;
  int count;

  __host__ __device__ int num_tiles() const { return (count + kWarp - 1) / kWarp; }
  __host__ __device__ int64_t mask_words() const { return num_tiles() * kStrip; }
};

// One box in registers.
struct Candidate {
  Corners corners;
  float area;
  bool alive;
};

// A box behind the end is dead; it is read where the last one is, so that nothing branches and loads overlap.
__device__ __forceinline__ Candidate load_box(const Problem& problem, const bool* alive, int64_t row, int64_t index,
                                              int64_t end) {
  const int64_t place = row * problem.num_boxes + min(index, end - 1);
  const Corners corners = load_vector<4>(problem.boxes + place * 4);
  return {corners, area_of(corners.values, problem.offset), index < end && alive[place]};
}

// A group of boxes in shared memory.
struct Group {
  Corners* corners;       // [kGroup]
  float* areas;           // [kGroup]
  uint32_t* alive_words;  // [kGroupTiles]

  // All threads of a block of kGroup store one box each.
  __device__ __forceinline__ void store(const Candidate& box) const {
    corners[threadIdx.x] = box.corners;
    areas[threadIdx.x] = box.area;
    const uint32_t word = __ballot_sync(kAllLanes, box.alive);
    if (threadIdx.x % kWarp == 0) alive_words[threadIdx.x / kWarp] = word;
  }

  // True wherever suppresses() is, and hardly anywhere else, without a division: a quotient above the threshold means a
  // numerator above threshold times denominator, and rounding, which is monotonic, cannot turn that round.
  __device__ __forceinline__ bool may_suppress(int index, const Candidate& box, const Problem& problem) const {
    const float width = shared_width(corners[index], box.corners, problem.offset);
    const float intersection = width * shared_height(corners[index], box.corners, problem.offset);
    return (width > 0.0f) & (intersection >= problem.threshold * (areas[index] + box.area - intersection));
  }

  __device__ __forceinline__ bool suppresses(int index, const Candidate& box, const Problem& problem) const {
    return overlap(corners[index], areas[index], box.corners, box.area, problem.offset) > problem.threshold;
  }

  // A bit for each box of a tile that suppresses this one.
  __device__ __forceinline__ uint32_t suppressors(int tile, const Candidate& box, const Problem& problem) const {
    uint32_t likely = 0, word = 0;
    for (int index = 0; index < kWarp; ++index) {
      likely |= may_suppress(tile * kWarp + index, box, problem) ? 1u << index : 0u;
    }
    for (; likely != 0; likely &= likely - 1) {
      const int index = __ffs(static_cast<int>(likely)) - 1;
      word |= suppresses(tile * kWarp + index, box, problem) ? 1u << index : 0u;
    }
    return word;
  }
};

// Pairs of groups with before <= own, numbered row by row of a triangle.
struct Pair {
  int own, before;
};

__device__ __forceinline__ Pair pair_of(int number) {
  int own = static_cast<int>((sqrtf(8.0f * static_cast<float>(number) + 1.0f) - 1.0f) * 0.5f);
  while (own * (own + 1) / 2 > number) --own;
  while ((own + 1) * (own + 2) / 2 <= number) ++own;
  return {own, number - own * (own + 1) / 2};
}

// A block compares two groups of one row; a thread writes the words of one box.
__global__ void __launch_bounds__(kGroup)
    compare(Problem problem, Strip strip, int num_pairs, const bool* __restrict__ alive, uint32_t* __restrict__ masks) {
  MRCNN_SHARED(Corners, corners, kGroup);
  MRCNN_SHARED(float, areas, kGroup);
  MRCNN_SHARED(uint32_t, alive_words, kGroupTiles);
  const Group group{corners, areas, alive_words};
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int64_t item = blockIdx.x; item < problem.num_rows * num_pairs; item += gridDim.x) {
    const int64_t row = item / num_pairs, end = strip.first + strip.count;
    const Pair pair = pair_of(static_cast<int>(item % num_pairs));
    const int own = pair.own * kGroup + threadIdx.x, own_tile = pair.own * kGroupTiles + warp;
    const Candidate box = load_box(problem, alive, row, strip.first + own, end);
    group.store(load_box(problem, alive, row, strip.first + pair.before * kGroup + threadIdx.x, end));
    __syncthreads();
    const int first_tile = pair.before * kGroupTiles;
    const int num_before = __any_sync(kAllLanes, box.alive) ? min(own_tile - first_tile + 1, kGroupTiles) : 0;
    uint32_t* column = masks + row * strip.mask_words() + own;
    for (int tile = 0; tile < num_before; ++tile) {
      if (alive_words[tile] == 0) continue;
      uint32_t word = group.suppressors(tile, box, problem);
      if (first_tile + tile == own_tile) word &= (1u << lane) - 1;
      column[(first_tile + tile) * kStrip] = word;
    }
    __syncthreads();
  }
}

// Which boxes of a tile stay, one a lane, where `before` holds those of the same tile that would strike it out. Each
// round settles at least one more lane than the last; most tiles take two or three.
__device__ __forceinline__ uint32_t settle(uint32_t before, bool alive) {
  uint32_t kept = __ballot_sync(kAllLanes, alive), last;
  do {
    last = kept;
    kept = __ballot_sync(kAllLanes, alive && (before & last) == 0);
  } while (kept != last);
  return kept;
}

// One thread's boxes in walk: a block apart, so that a warp holds whole tiles.
struct Walker {
  bool alive[kSlots];

  __device__ __forceinline__ static int index_of(int slot) { return slot * blockDim.x + threadIdx.x; }

  // The words of the tiles from `first` on; they do not depend on which boxes stay, so they can be asked for early.
  __device__ __forceinline__ void fetch(const uint32_t* mask, int first, int end,
                                        uint32_t (&words)[kAhead][kSlots]) const {
    for (int slot = 0; slot < kSlots; ++slot) {
      const int num_steps = alive[slot] ? min(end, index_of(slot) / kWarp + 1) - first : 0;
      const uint32_t* column = mask + first * kStrip + index_of(slot);
      for (int step = 0; step < kAhead; ++step) {
        words[step][slot] = step < num_steps ? __ldg(column + step * kStrip) : 0;
      }
    }
  }

  // Settles a tile, and strikes out what its boxes overlap. All threads of the block.
  __device__ __forceinline__ void pass(int tile, const uint32_t (&words)[kSlots], uint32_t* kept) {
    for (int slot = 0; slot < kSlots; ++slot) {
      if (index_of(slot) / kWarp != tile) continue;
      const uint32_t word = settle(words[slot], alive[slot]);
      alive[slot] = word >> (threadIdx.x % kWarp) & 1;
      if (threadIdx.x % kWarp == 0) kept[tile] = word;
    }
    __syncthreads();
    for (int slot = 0; slot < kSlots; ++slot) alive[slot] = alive[slot] && (words[slot] & kept[tile]) == 0;
  }
};

// A block decides which boxes of one row's strip stay.
__global__ void __launch_bounds__(kWalkThreads)
    walk(Problem problem, Strip strip, const bool* alive, const uint32_t* __restrict__ masks, bool* keep) {
  MRCNN_SHARED(uint32_t, kept, kStrip / kWarp);
  MRCNN_SHARED(int, num_tiles, 1);  // up to the last one with a box that is alive
  for (int64_t row = blockIdx.x; row < problem.num_rows; row += gridDim.x) {
    const int64_t start = row * problem.num_boxes + strip.first;
    const uint32_t* mask = masks + row * strip.mask_words();
    if (threadIdx.x == 0) num_tiles[0] = 0;
    __syncthreads();
    Walker walker;
    for (int slot = 0; slot < kSlots; ++slot) {
      const int index = Walker::index_of(slot);
      walker.alive[slot] = index < strip.count && alive[start + index];
      if (__any_sync(kAllLanes, walker.alive[slot]) && index % kWarp == 0) atomicMax(num_tiles, index / kWarp + 1);
    }
    __syncthreads();
    const int end = num_tiles[0];
    uint32_t words[kAhead][kSlots], next[kAhead][kSlots];
    walker.fetch(mask, 0, end, next);
    for (int first = 0; first < end; first += kAhead) {
      for (int step = 0; step < kAhead; ++step) {
        for (int slot = 0; slot < kSlots; ++slot) words[step][slot] = next[step][slot];
      }
      walker.fetch(mask, first + kAhead, end, next);
      for (int step = 0; step < kAhead; ++step) {
        if (first + step < end) walker.pass(first + step, words[step], kept);
      }
    }
    for (int slot = 0; slot < kSlots; ++slot) {
      const int index = Walker::index_of(slot);
      if (index < strip.count) keep[start + index] = walker.alive[slot];
    }
    __syncthreads();
  }
}

// A thread looks whether a kept box of the strip strikes out its own, which lies behind the strip.
__global__ void __launch_bounds__(kGroup)
    strike_rest(Problem problem, Strip strip, int64_t num_groups, const bool* alive, bool* keep) {
  MRCNN_SHARED(Corners, corners, kGroup);
  MRCNN_SHARED(float, areas, kGroup);
  MRCNN_SHARED(uint32_t, kept_words, kGroupTiles);
  const Group group{corners, areas, kept_words};
  const int64_t end = strip.first + strip.count;
  for (int64_t item = blockIdx.x; item < problem.num_rows * num_groups; item += gridDim.x) {
    const int64_t row = item / num_groups, own = end + item % num_groups * kGroup + threadIdx.x;
    Candidate box = load_box(problem, alive, row, own, problem.num_boxes);
    for (int64_t first = strip.first; first < end && __syncthreads_or(box.alive); first += kGroup) {
      group.store(load_box(problem, keep, row, first + threadIdx.x, end));
      __syncthreads();
      for (int tile = 0; tile < kGroupTiles; ++tile) {
        for (uint32_t left = kept_words[tile]; left != 0 && box.alive; left &= left - 1) {
          const int index = tile * kWarp + __ffs(static_cast<int>(left)) - 1;
          box.alive = !(group.may_suppress(index, box, problem) && group.suppresses(index, box, problem));
        }
      }
    }
    if (own < problem.num_boxes) keep[row * problem.num_boxes + own] = box.alive;
  }
}

int64_t groups_of(int64_t count) { return (count + kGroup - 1) / kGroup; }

void suppress_strip(const Problem& problem, const Strip& strip, uint32_t* masks, bool* keep, cudaStream_t stream) {
  const bool* alive = strip.first == 0 ? problem.valid : keep;
  const int64_t num_pairs = groups_of(strip.count) * (groups_of(strip.count) + 1) / 2;
  MRCNN_LAUNCH(compare, grid_for(problem.num_rows * num_pairs), dim3(kGroup), 0, stream, problem, strip,
               static_cast<int>(num_pairs), alive, masks);
  const int walk_threads = (strip.num_tiles() + kSlots - 1) / kSlots * kWarp;
  MRCNN_LAUNCH(walk, grid_for(problem.num_rows), dim3(walk_threads), 0, stream, problem, strip, alive, masks, keep);
  const int64_t num_groups = groups_of(problem.num_boxes - strip.first - strip.count);
  if (num_groups == 0) return;
  MRCNN_LAUNCH(strike_rest, grid_for(problem.num_rows * num_groups), dim3(kGroup), 0, stream, problem, strip,
               num_groups, alive, keep);
}

}  // namespace

int64_t mask_words(int64_t num_boxes) { return Strip{0, static_cast<int>(std::min(num_boxes, kStrip))}.mask_words(); }

cudaError_t suppress(const Problem& problem, int64_t rows_at_once, uint32_t* masks, bool* keep, cudaStream_t stream) {
  for (int64_t row = 0; row < problem.num_rows; row += rows_at_once) {
    Problem part = problem;
    part.boxes += row * problem.num_boxes * 4;
    part.valid += row * problem.num_boxes;
    part.num_rows = std::min(rows_at_once, problem.num_rows - row);
    for (int64_t first = 0; first < problem.num_boxes; first += kStrip) {
      const Strip strip{first, static_cast<int>(std::min(kStrip, problem.num_boxes - first))};
      suppress_strip(part, strip, masks, keep + row * problem.num_boxes, stream);
    }
  }
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace mrcnn::nms::cuda
