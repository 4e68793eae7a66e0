// Deformable convolution on CUDA devices: what the taps read, and its gradients; matrix products do the rest. Nothing
// here knows torch. N images, C channels, H W, G groups, K taps, D deformable groups, P output pixels.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"
#include "../common/half.h"
#include "deform_conv_geometry.h"

namespace mrcnn::deform_conv::cuda {

// Output pixels first .. first + count - 1. Their columns are [G, count, K * C / G].
struct Rows {
  int64_t first, count;
};

#define MRCNN_DECLARE(T)                                                                                             \
  /* What the taps read: columns, bit for bit as the CPU kernel reads it, but rounded to T. input: [N, H, W, C]. */  \
  cudaError_t read(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* input, T* columns,               \
                   cudaStream_t stream);                                                                             \
  /* The gradients of y, x and mask: grads [P, D, K], of which those of the rows are written. */                     \
  cudaError_t read_backward(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* input,                  \
                            const T* columns_grad, SampleGrad<Accumulate<T>::type>* grads, cudaStream_t stream);     \
  /* Adds the gradients of the input to sums [N, H, W, C] with atomics: in any order. */                             \
  cudaError_t scatter(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* columns_grad,                 \
                      Accumulate<T>::type* sums, cudaStream_t stream);                                               \
  /* The same in the order of the output pixels. order: the indices of keys [count, D, K, 4], sorted by key and then \
     by index; begins [D * N * H * W + 1]: where each key starts in it. */                                           \
  cudaError_t scatter_in_order(const Problem<Accumulate<T>::type>& problem, Rows rows, const T* columns_grad,        \
                               const int64_t* order, const int64_t* begins, Accumulate<T>::type* sums,               \
                               cudaStream_t stream);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

// Which pixel each corner of a sample adds to: keys [count, D, K, 4], d * N * H * W + pixel, or D * N * H * W for none.
cudaError_t write_keys(const Problem<float>& problem, Rows rows, int64_t* keys, cudaStream_t stream);
cudaError_t write_keys(const Problem<double>& problem, Rows rows, int64_t* keys, cudaStream_t stream);

}  // namespace mrcnn::deform_conv::cuda
