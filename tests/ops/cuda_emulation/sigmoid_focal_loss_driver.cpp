// The launchers of sigmoid_focal_loss_cuda.cu for ctypes, one of each for every dtype. All pointers are the host's.
#include "../../../csrc/sigmoid_focal_loss/sigmoid_focal_loss_cuda.h"

extern "C" int chunk_size() { return static_cast<int>(mrcnn::sigmoid_focal_loss::cuda::kChunk); }

#define DEFINE(name, T, A)                                                                                       \
  extern "C" int forward_##name(const T* logits, const int64_t* targets, int64_t num_rows, int64_t num_classes,  \
                                double gamma, double alpha, double* sums, A* output) {                           \
    return static_cast<int>(mrcnn::sigmoid_focal_loss::cuda::forward(                                            \
        {logits, targets, num_rows, num_classes, gamma, alpha}, sums, output, nullptr));                         \
  }                                                                                                              \
  extern "C" int backward_##name(const T* logits, const int64_t* targets, int64_t num_rows, int64_t num_classes, \
                                 double gamma, double alpha, const A* grad, T* gradient) {                       \
    return static_cast<int>(mrcnn::sigmoid_focal_loss::cuda::backward(                                           \
        {logits, targets, num_rows, num_classes, gamma, alpha}, grad, gradient, nullptr));                       \
  }

DEFINE(float32, float, float)
DEFINE(float64, double, double)
DEFINE(float16, mrcnn::Half, float)
DEFINE(bfloat16, mrcnn::BFloat16, float)
