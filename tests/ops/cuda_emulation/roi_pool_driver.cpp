// The launchers of roi_pool_cuda.cu for ctypes, one of each for every dtype. All pointers are the host's; sizes holds
// R, N, C, H, W, ph, pw and whether the maps are channels last.
#include "../../../csrc/roi_pool/roi_pool_cuda.h"

namespace {

template <typename A>
mrcnn::roi_pool::cuda::Problem<A> problem(const A* rois, const int64_t* sizes, double scale) {
  return {rois, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], scale, sizes[7] != 0};
}

}  // namespace

#define DEFINE(name, T, A)                                                                                           \
  extern "C" int forward_##name(const A* rois, const int64_t* sizes, double scale, const T* features, T* output,     \
                                int32_t* argmax) {                                                                   \
    return static_cast<int>(                                                                                         \
        mrcnn::roi_pool::cuda::forward(problem(rois, sizes, scale), features, output, argmax, nullptr));             \
  }                                                                                                                  \
  extern "C" int backward_atomic_##name(const A* rois, const int64_t* sizes, double scale, const T* grad,            \
                                        const int32_t* argmax, A* sums) {                                            \
    return static_cast<int>(                                                                                         \
        mrcnn::roi_pool::cuda::backward_atomic(problem(rois, sizes, scale), grad, argmax, sums, nullptr));           \
  }                                                                                                                  \
  extern "C" int backward_in_order_##name(const A* rois, const int64_t* sizes, double scale, const T* grad,          \
                                          const int32_t* argmax, T* features_grad) {                                 \
    return static_cast<int>(                                                                                         \
        mrcnn::roi_pool::cuda::backward_in_order(problem(rois, sizes, scale), grad, argmax, features_grad, nullptr)); \
  }

DEFINE(float32, float, float)
DEFINE(float64, double, double)
DEFINE(float16, mrcnn::Half, float)
DEFINE(bfloat16, mrcnn::BFloat16, float)
