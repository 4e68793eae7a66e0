// ROIPool (max pooling of rois) on CUDA devices. Nothing here knows torch. N images, C channels, H W, R rois.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"
#include "../common/half.h"

namespace mrcnn::roi_pool::cuda {

// The rois lie on the device. Feature maps, pooled maps and gradients are dense in one layout: channels last, or not.
template <typename A>
struct Problem {
  const A* rois;  // [R, 5] batch index, x1, y1, x2, y2; a negative batch index marks an empty slot
  int64_t num_rois;
  int64_t num_images;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t pooled_height;
  int64_t pooled_width;
  double scale;
  bool channels_last;

  __host__ __device__ int64_t bins() const { return pooled_height * pooled_width; }
  __host__ __device__ int64_t pixels() const { return height * width; }
};

#define MRCNN_DECLARE(T)                                                                                             \
  /* The largest value of each bin [R, C, ph, pw], bit for bit as the CPU kernel finds it, and its flat pixel index  \
     or -1 for an empty bin. A roi of an image that is not there gives NaN. */                                       \
  cudaError_t forward(const Problem<Accumulate<T>::type>& problem, const T* features, T* output, int32_t* argmax,    \
                      cudaStream_t stream);                                                                          \
  /* Adds grad [R, C, ph, pw] to sums [N, C, H, W] with atomics: in any order. */                                    \
  cudaError_t backward_atomic(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,     \
                              Accumulate<T>::type* sums, cudaStream_t stream);                                       \
  /* The same into features_grad [N, C, H, W], which need not be cleared: each pixel adds its bins in the order of   \
     the rois, as the CPU kernel does. Channels last only. */                                                        \
  cudaError_t backward_in_order(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,   \
                                T* features_grad, cudaStream_t stream);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

}  // namespace mrcnn::roi_pool::cuda
