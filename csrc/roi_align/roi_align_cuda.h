// ROIAlign over the levels of a feature pyramid, on CUDA devices. Nothing here knows torch.
// N images, C channels, H W, L levels, R rois.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"

namespace mrcnn::roi_align::cuda {

constexpr int kMaxLevels = 8;

template <typename A>
struct Level {
  int height;
  int width;
  A scale;  // feature pixels per image pixel
};

// A negative batch index marks an empty slot. Such a roi, one with a coordinate that is not finite, and one of an image
// or a level that is not there, read nothing: they pool to zeros and get no gradient.
template <typename A>
struct Problem {
  const A* rois;              // [R, 5] batch index, x1, y1, x2, y2
  const int64_t* roi_levels;  // [R], or null: all on level 0
  int64_t num_rois;
  int num_images;
  int channels;
  int pooled_height;
  int pooled_width;
  int sampling_ratio;  // samples per bin and axis; 0: one per feature pixel, rounded up
  int num_levels;
  Level<A> levels[kMaxLevels];

  __host__ __device__ int bins() const { return pooled_height * pooled_width; }
};

// The dense maps [N, C, H, W] of all levels.
template <typename T>
struct Maps {
  T* levels[kMaxLevels];
};

// Bytes that backward_in_order needs beside its arguments.
template <typename A>
int64_t workspace_bytes(const Problem<A>& problem);

#define MRCNN_DECLARE(T)                                                                                             \
  /* Pools every roi into output [R, C, ph, pw], bit for bit as the CPU kernel does. Maps and output are channels    \
     last, or not. */                                                                                                \
  cudaError_t forward(const Problem<Accumulate<T>::type>& problem, const Maps<const T>& maps, bool channels_last,    \
                      T* output, cudaStream_t stream);                                                               \
  /* Adds grad [R, C, ph, pw] to sums with atomics: in any order. All channels last. */                              \
  cudaError_t backward_atomic(const Problem<Accumulate<T>::type>& problem, const T* grad,                            \
                              const Maps<Accumulate<T>::type>& sums, cudaStream_t stream);                           \
  /* The same into maps, which need not be cleared: each pixel adds its rois by their index, without atomics. All    \
     channels last. workspace: workspace_bytes(problem) bytes, aligned to 8.  */                                     \
  cudaError_t backward_in_order(const Problem<Accumulate<T>::type>& problem, const T* grad, const Maps<T>& maps,     \
                                void* workspace, cudaStream_t stream);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

}  // namespace mrcnn::roi_align::cuda
