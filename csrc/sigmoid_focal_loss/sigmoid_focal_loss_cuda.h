// The focal loss and its gradient on CUDA devices. Nothing here knows torch. R boxes, K classes.
//
// A chunk of the logits is a block's, whatever the row that it begins in; each value takes its row from its place. The
// sums of the chunks are added by a second kernel in a fixed order, so that the result never changes from run to run.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"

namespace mrcnn::sigmoid_focal_loss::cuda {

constexpr int64_t kChunk = 8192;  // logits

// All pointers are the device's; logits a multiple of 16 bytes.
template <typename T>
struct Problem {
  const T* logits;         // [R, K]
  const int64_t* targets;  // [R] 0 is background, 1 to K a class, negative ignored
  int64_t num_rows;
  int64_t num_classes;  // less than 2^31 - 1
  double gamma, alpha;

  __host__ __device__ int64_t size() const { return num_rows * num_classes; }
  __host__ __device__ int64_t num_chunks() const { return (size() + kChunk - 1) / kChunk; }
};

#define MRCNN_DECLARE(T)                                                                                          \
  /* Writes the sum of the losses into output: []. sums: [num_chunks] scratch. */                                 \
  cudaError_t forward(const Problem<T>& problem, double* sums, Accumulate<T>::type* output, cudaStream_t stream); \
  /* Writes the gradient: [R, K], a multiple of 16 bytes. grad: [] that of the sum. */                            \
  cudaError_t backward(const Problem<T>& problem, const Accumulate<T>::type* grad, T* gradient, cudaStream_t stream);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

}  // namespace mrcnn::sigmoid_focal_loss::cuda
