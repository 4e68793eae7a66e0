// Deformable convolution for CPUs: what the taps read, and its gradients; matrix products do the rest. Nothing here
// knows torch. N images, C channels, H W, K taps, D deformable groups, P output pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/half.h"
#include "deform_conv_geometry.h"

namespace mrcnn::deform_conv {

// The samples [end - begin, D, K] of the output pixels [begin, end).
void locate(const Problem<float>& problem, int64_t begin, int64_t end, Sample<float>* samples);
void locate(const Problem<double>& problem, int64_t begin, int64_t end, Sample<double>* samples);

#define MRCNN_DECLARE(T)                                                                                             \
  /* What the taps of `rows` output pixels read: columns [rows, K * C]. samples: [rows, D, K]. */                    \
  void read(const Problem<Accumulate<T>::type>& problem, const Sample<Accumulate<T>::type>* samples, const T* input, \
            int64_t rows, Accumulate<T>::type* columns);                                                             \
  /* The gradients of y, x and mask: grads [rows, D, K]. columns_grad: [rows, K * C]. */                             \
  void read_backward(const Problem<Accumulate<T>::type>& problem, const Sample<Accumulate<T>::type>* samples,        \
                     const T* input, const Accumulate<T>::type* columns_grad, int64_t rows,                          \
                     SampleGrad<Accumulate<T>::type>* grads);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

// Channels of one group and one deformable group.
struct ChannelBlock {
  int64_t first, count;
};

// All channels in blocks of at most `most`.
std::vector<ChannelBlock> channel_blocks(int64_t channels, int64_t groups, int64_t deformable_groups, int64_t most);

// Adds the gradients of one block of channels, read by `rows` output pixels, to sums [N, H, W, C], in their order.
void scatter(const Problem<float>& problem, const Sample<float>* samples, const float* columns_grad, int64_t rows,
             ChannelBlock block, float* sums);
void scatter(const Problem<double>& problem, const Sample<double>* samples, const double* columns_grad, int64_t rows,
             ChannelBlock block, double* sums);

}  // namespace mrcnn::deform_conv
