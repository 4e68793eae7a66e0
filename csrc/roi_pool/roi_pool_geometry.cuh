// Where a roi and its bins lie on the feature map. The arithmetic is the CPU kernel's, operation by operation.
#pragma once

#include "roi_pool_cuda.h"

namespace mrcnn::roi_pool::cuda {

__device__ __forceinline__ float round_away(float value) { return roundf(value); }
__device__ __forceinline__ double round_away(double value) { return round(value); }
__device__ __forceinline__ float round_down(float value) { return floorf(value); }
__device__ __forceinline__ double round_down(double value) { return floor(value); }
__device__ __forceinline__ float round_up(float value) { return ceilf(value); }
__device__ __forceinline__ double round_up(double value) { return ceil(value); }

// False for infinities and NaN.
template <typename A>
__device__ __forceinline__ bool is_finite(A value) {
  return value - value == A(0);
}

// Pixels [begin, end) along one axis.
struct Range {
  int begin, end;

  __device__ bool holds(int pixel) const { return begin <= pixel && pixel < end; }
};

// A roi on its map: corners rounded to whole pixels, both inclusive, as the published ROIPool has it.
template <typename A>
class Roi {
 public:
  __device__ Roi(const Problem<A>& problem, int64_t roi) : problem_(problem) {
    const A* values = problem.rois + roi * 5;
    const A batch = values[0];
    bool usable = batch >= A(0);
    for (int index = 0; index < 5; ++index) usable = usable && is_finite(values[index]);
    exists_ = !usable || batch < static_cast<A>(problem.num_images);
    reads_ = usable && exists_;
    image_ = reads_ ? static_cast<int64_t>(batch) : 0;
    const A scale = static_cast<A>(problem.scale);
    x1_ = round_away(values[1] * scale);
    y1_ = round_away(values[2] * scale);
    const A width = round_away(values[3] * scale) - x1_ + A(1), height = round_away(values[4] * scale) - y1_ + A(1);
    // Comparisons, not fmax: a size that is not a number stays so.
    bin_width_ = (width < A(1) ? A(1) : width) / static_cast<A>(problem.pooled_width);
    bin_height_ = (height < A(1) ? A(1) : height) / static_cast<A>(problem.pooled_height);
  }

  // False for an empty slot, a coordinate that is not finite, and an image that is not there.
  __device__ bool reads() const { return reads_; }
  // False for an image that is not there.
  __device__ bool exists() const { return exists_; }
  __device__ int64_t image() const { return image_; }

  __device__ Range rows(int bin) const { return reads_ ? range(y1_, bin_height_, bin, problem_.height) : Range{0, 0}; }
  __device__ Range columns(int bin) const { return reads_ ? range(x1_, bin_width_, bin, problem_.width) : Range{0, 0}; }

 private:
  __device__ static Range range(A start, A bin_size, int bin, int64_t extent) {
    const A limit = static_cast<A>(extent);
    return {clamp(round_down(static_cast<A>(bin) * bin_size) + start, limit),
            clamp(round_up(static_cast<A>(bin + 1) * bin_size) + start, limit)};
  }

  // Not a number, from a roi whose size overflows, is 0.
  __device__ static int clamp(A edge, A limit) {
    return static_cast<int>(edge > A(0) ? (edge < limit ? edge : limit) : A(0));
  }

  const Problem<A>& problem_;
  bool reads_, exists_;
  int64_t image_;
  A x1_, y1_, bin_width_, bin_height_;
};

}  // namespace mrcnn::roi_pool::cuda
