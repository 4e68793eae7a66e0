// What the two kernels of ROIAlign's gradient share. Bilinear weights are products of one factor per axis, so what a
// bin gives to a pixel is too, summed over all samples of the bin. The kernels therefore work on tiles of pixels, for
// which they weigh the bins of each axis first, and touch each pixel of a roi once instead of once per sample and
// corner.
#pragma once

#include "roi_align_geometry.cuh"

namespace mrcnn::roi_align::cuda {

constexpr int kWarp = 32;
constexpr int kTile = 8;    // pixels of a tile along each axis
constexpr int kStrip = 4;   // pixels one above the other that a thread does
constexpr int kLanes = 16;  // threads side by side, each with its channels
constexpr int kThreads = kLanes * kTile * (kTile / kStrip);
constexpr int kBins = 16;  // of one axis that are weighed at a time
constexpr int kBatch = 8;  // pairs of a roi and a tile that are weighed at a time
constexpr unsigned kAll = 0xffffffffu;

// The first pixel of a tile.
struct Corner {
  int y, x;
};

// Pixels [top, bottom) and [left, right).
struct Bounds {
  int top, bottom, left, right;

  __device__ bool overlaps(Corner tile) const {
    return top < tile.y + kTile && tile.y < bottom && left < tile.x + kTile && tile.x < right;
  }
};

struct Range {
  int begin, end;
};

// A roi with the sizes that its weights need.
template <typename A>
struct Entry {
  Axis<A> y, x;
  A count;  // samples per bin
  int roi;
};

template <typename A>
__device__ __forceinline__ Entry<A> make_entry(const Problem<A>& problem, int64_t roi, int level) {
  const Place<A> place(problem, roi, level);
  return {place.y, place.x, place.samples_per_bin(), static_cast<int>(roi)};
}

// All pixels that an axis reads.
template <typename A>
__device__ __forceinline__ Range pixels_of(const Axis<A>& axis, int bins) {
  const int last_bin = bins - 1, last_step = axis.grid - 1;
  const bool meets = axis.position(0, 0) <= static_cast<A>(axis.extent) && axis.position(last_bin, last_step) >= A(-1);
  if (!meets) return {0, 0};
  const Sample<A> first = axis.sample(0, 0), last = axis.sample(last_bin, last_step);
  return {max(first.low, 0), last.low < 0 ? axis.extent : last.high + 1};
}

template <typename A>
__device__ __forceinline__ Bounds bounds_of(const Problem<A>& problem, const Entry<A>& entry) {
  const Range y = pixels_of(entry.y, problem.pooled_height), x = pixels_of(entry.x, problem.pooled_width);
  return {y.begin, y.end, x.begin, x.end};
}

// The bins from (row, column) on, kBins of each axis at most. Mostly one window holds all bins.
struct Window {
  int row, column;
};

// For each pair of a batch: what the bins give to the rows (0) and the columns (1) of the tile.
template <typename A>
struct Weights {
  Window window;
  A values[kBatch][2][kTile][kBins];
  unsigned bins[kBatch][2][kTile];  // bit b: bin b gives something

  // The bins that give something to any of the rows or columns [first, first + count).
  __device__ __forceinline__ Range bins_of(int pair, int axis, int first, int count) const {
    unsigned bits = 0;
    for (int index = 0; index < count; ++index) bits |= bins[pair][axis][first + index];
    return {bits ? __ffs(static_cast<int>(bits)) - 1 : 0, 32 - __clz(static_cast<int>(bits))};
  }
};

__host__ __device__ __forceinline__ int divide_up(int value, int by) { return (value + by - 1) / by; }

template <typename A>
__device__ __forceinline__ int windows_of(const Problem<A>& problem) {
  return divide_up(problem.pooled_height, kBins) * divide_up(problem.pooled_width, kBins);
}

template <typename A>
__device__ __forceinline__ Window window_at(const Problem<A>& problem, int index) {
  const int in_row = divide_up(problem.pooled_width, kBins);
  return {index / in_row * kBins, index % in_row * kBins};
}

// Fills the weights of `count` pairs: of entry_of(pair) with the tile at corner_of(pair). The whole block takes part.
template <typename A, typename EntryOf, typename CornerOf>
__device__ __forceinline__ void weigh(const Problem<A>& problem, Window window, int count, const EntryOf& entry_of,
                                      const CornerOf& corner_of, Weights<A>& weights) {
  if (threadIdx.x == 0) weights.window = window;
  const int rows = problem.pooled_height - window.row, columns = problem.pooled_width - window.column;
  const int shift = max(rows, columns) <= kBins / 2 ? 3 : 4;  // 8 or 16 bins of a pixel side by side in a warp
  const int slot = static_cast<int>(threadIdx.x) & ((1 << shift) - 1);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int item = threadIdx.x; item < (count * 2 * kTile) << shift; item += kThreads) {
    const int pixel = (item >> shift) % kTile, axis = (item >> shift) / kTile % 2, pair = (item >> shift) / (2 * kTile);
    const Entry<A>& entry = entry_of(pair);
    const Axis<A>& side = axis == 0 ? entry.y : entry.x;
    const int bin = slot + (axis == 0 ? window.row : window.column);
    const int at = pixel + (axis == 0 ? corner_of(pair).y : corner_of(pair).x);
    A weight = 0;
    if (slot < (axis == 0 ? rows : columns)) weight = side.weight(bin, at) / (axis == 0 ? entry.count : A(1));
    weights.values[pair][axis][pixel][slot] = weight;
    const unsigned bits = __ballot_sync(kAll, weight > A(0)) >> (lane - slot);
    if (slot == 0) weights.bins[pair][axis][pixel] = bits & ((1u << (1 << shift)) - 1);
  }
}

// Where a thread works within a tile, and on which channels.
template <int kWidth>
struct Seat {
  int lane = static_cast<int>(threadIdx.x) % kLanes;
  int column = static_cast<int>(threadIdx.x) / kLanes % kTile;
  int row = static_cast<int>(threadIdx.x) / (kLanes * kTile) * kStrip;

  __device__ int channel(int first) const { return first + lane * kWidth; }
};

// Adds what the bins of one roi give to a strip of pixels. grad: the first of them, at the thread's channel.
template <int kWidth, typename T, typename A>
__device__ __forceinline__ void add_roi(const Problem<A>& problem, const Weights<A>& weights, int pair,
                                        const Seat<kWidth>& seat, const T* grad, A (&sums)[kStrip][kWidth]) {
  const Range columns = weights.bins_of(pair, 1, seat.column, 1), rows = weights.bins_of(pair, 0, seat.row, kStrip);
  if (columns.begin >= columns.end) return;
  for (int row = rows.begin; row < rows.end; ++row) {
    const int bin = (weights.window.row + row) * problem.pooled_width + weights.window.column;
    A line[kWidth] = {};
    for (int column = columns.begin; column < columns.end; ++column) {
      const Vector<T, kWidth> values = load_vector<kWidth>(grad + (bin + column) * problem.channels);
      const A weight = weights.values[pair][1][seat.column][column];
      for (int c = 0; c < kWidth; ++c) line[c] += weight * load(values.values[c]);
    }
    for (int k = 0; k < kStrip; ++k) {
      const A weight = weights.values[pair][0][seat.row + k][row];
      if (weight == A(0)) continue;  // so that an infinite gradient stays where it belongs
      for (int c = 0; c < kWidth; ++c) sums[k][c] += weight * line[c];
    }
  }
}

template <int kWidth>
__host__ __device__ __forceinline__ int groups_of(int channels) {
  return divide_up(channels, kLanes * kWidth);
}

}  // namespace mrcnn::roi_align::cuda
