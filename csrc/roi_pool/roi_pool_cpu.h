// ROIPool (max pooling of rois) for CPUs. Nothing here knows torch. N images, C channels, H W, R rois.
#pragma once

#include <cstdint>

#include "../common/half.h"

namespace mrcnn::roi_pool {

template <typename A>
struct Problem {
  const A* rois;  // [R, 5] batch index, x1, y1, x2, y2; a negative batch index marks an empty slot
  int64_t num_rois;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t pooled_height;
  int64_t pooled_width;
  double scale;

  int64_t bins() const { return pooled_height * pooled_width; }
};

#define MRCNN_DECLARE(T)                                                                                             \
  /* Rois [begin, end): the largest value of each bin, and its flat pixel index or -1 for an empty bin. features:    \
     [N, H, W, C] dense. output, argmax: an [R, C, ph, pw] tensor, dense either as such or with channels last. */    \
  void forward(const Problem<Accumulate<T>::type>& problem, const T* features, T* output, int32_t* argmax,           \
               bool channels_last, int64_t begin, int64_t end);                                                      \
  /* Channels [begin, end) of all rois, in their order. grad, argmax: [R, C, ph, pw] dense; sums: [N, C, H, W]       \
     dense, added to. */                                                                                             \
  void backward(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,                   \
                Accumulate<T>::type* sums, int64_t begin, int64_t end);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

}  // namespace mrcnn::roi_pool
