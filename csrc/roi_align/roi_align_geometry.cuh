// Where the samples of a roi lie, for the kernels of both directions. The arithmetic is that of the CPU kernel, step by
// step, so that results agree to the last bit.
#pragma once

#include "../common/cuda.cuh"
#include "roi_align_cuda.h"

namespace mrcnn::roi_align::cuda {

constexpr int kMaxGrid = 1 << 20;  // bounds the samples of absurdly large boxes

// One sample along one axis: the two pixels it lies between and their weights. low < 0: it lies outside and counts 0.
template <typename A>
struct Sample {
  int low, high;
  A low_weight, high_weight;
};

// One axis of a roi on its level.
template <typename A>
struct Axis {
  A start, bin_size;
  int grid;    // samples per bin
  int extent;  // pixels of the map

  // Ascends within a bin, rounding included; the first sample of all has the least, the last the greatest.
  __device__ __forceinline__ A position(int bin, int step) const {
    return start + static_cast<A>(bin) * bin_size + (static_cast<A>(step) + A(0.5)) * bin_size / static_cast<A>(grid);
  }

  __device__ __forceinline__ Sample<A> sample(int bin, int step) const {
    A at = position(bin, step);
    // Written so that NaN counts as outside.
    if (!(at >= A(-1) && at <= static_cast<A>(extent))) return {-1, -1, A(0), A(0)};
    at = at < A(0) ? A(0) : at;
    const int low = min(static_cast<int>(at), extent - 1);
    const A high_weight = low == extent - 1 ? A(0) : at - static_cast<A>(low);
    return {low, min(low + 1, extent - 1), A(1) - high_weight, high_weight};
  }

  // The first step of a bin at `bound` or behind it, or `grid`. Spares the samples far outside of the map, of which a
  // large box has many.
  __device__ __forceinline__ int first_step(int bin, A bound) const {
    int begin = 0, end = grid;
    while (begin < end) {
      const int middle = (begin + end) / 2;
      if (position(bin, middle) >= bound) {
        end = middle;
      } else {
        begin = middle + 1;
      }
    }
    return begin;
  }

  // The sum of the weights with which a bin reads one pixel.
  __device__ __forceinline__ A weight(int bin, int pixel) const {
    A sum = 0;
    const A behind = static_cast<A>(pixel + 1);
    for (int step = first_step(bin, static_cast<A>(pixel - 1)); step < grid; ++step) {
      if (!(position(bin, step) <= behind)) break;
      const Sample<A> at = sample(bin, step);
      if (at.low < 0) continue;
      sum += (at.low == pixel ? at.low_weight : A(0)) + (at.high == pixel ? at.high_weight : A(0));
    }
    return sum;
  }
};

// False for infinities and NaN.
template <typename A>
__device__ __forceinline__ bool is_finite(A value) {
  return value - value == A(0);
}

// The image and the level of a roi. image < 0: it reads nothing.
struct Source {
  int image, level;
};

template <typename A>
__device__ __forceinline__ Source source_of(const Problem<A>& problem, int64_t roi) {
  const A* values = problem.rois + roi * 5;
  bool finite = true;
  for (int index = 0; index < 5; ++index) finite = finite && is_finite(values[index]);
  const int64_t level = problem.roi_levels ? problem.roi_levels[roi] : 0;
  const bool exists = finite && values[0] >= A(0) && values[0] < static_cast<A>(problem.num_images) && level >= 0 &&
                      level < problem.num_levels;
  return exists ? Source{static_cast<int>(values[0]), static_cast<int>(level)} : Source{-1, 0};
}

template <typename A>
__device__ __forceinline__ Axis<A> axis_of(A begin, A end, int bins, int sampling_ratio, int extent) {
  const A size = end - begin < A(1) ? A(1) : end - begin;
  const A bin_size = size / static_cast<A>(bins);
  if (sampling_ratio > 0) return {begin, bin_size, sampling_ratio, extent};
  const A grid = ceil(bin_size);
  return {begin, bin_size, grid < A(kMaxGrid) ? static_cast<int>(grid) : kMaxGrid, extent};
}

// A roi on its level, of which it is known that it reads something.
template <typename A>
struct Place {
  Axis<A> y, x;

  __device__ __forceinline__ Place(const Problem<A>& problem, int64_t roi, int level_index) {
    const A* values = problem.rois + roi * 5;
    const Level<A> level = problem.levels[level_index];
    y = axis_of(values[2] * level.scale, values[4] * level.scale, problem.pooled_height, problem.sampling_ratio,
                level.height);
    x = axis_of(values[1] * level.scale, values[3] * level.scale, problem.pooled_width, problem.sampling_ratio,
                level.width);
  }

  __device__ __forceinline__ A samples_per_bin() const {
    return static_cast<A>(static_cast<int64_t>(y.grid) * x.grid);
  }
};

}  // namespace mrcnn::roi_align::cuda
