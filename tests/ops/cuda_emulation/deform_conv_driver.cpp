// The launchers of deform_conv_cuda.cu for ctypes, one of each for every dtype. All pointers are the host's; sizes holds
// the numbers of Problem in their order, then the first output pixel and the number of them.
#include "../../../csrc/deform_conv/deform_conv_cuda.h"

namespace {

namespace cuda = mrcnn::deform_conv::cuda;
using mrcnn::deform_conv::Problem;
using mrcnn::deform_conv::SampleGrad;
using mrcnn::deform_conv::cuda::Rows;

template <typename A>
Problem<A> problem(const A* offset, const A* mask, const int64_t* sizes) {
  return {offset,    mask,      sizes[0],  sizes[1],  sizes[2],  sizes[3],  sizes[4],  sizes[5],  sizes[6],
          sizes[7],  sizes[8],  sizes[9],  sizes[10], sizes[11], sizes[12], sizes[13], sizes[14], sizes[15]};
}

Rows rows(const int64_t* sizes) { return {sizes[16], sizes[17]}; }

}  // namespace

#define DEFINE(name, T, A)                                                                                           \
  extern "C" int read_##name(const A* offset, const A* mask, const int64_t* sizes, const T* input, T* columns) {     \
    return static_cast<int>(cuda::read(problem(offset, mask, sizes), rows(sizes), input, columns, nullptr));         \
  }                                                                                                                  \
  extern "C" int read_backward_##name(const A* offset, const A* mask, const int64_t* sizes, const T* input,          \
                                      const T* columns_grad, A* grads) {                                             \
    return static_cast<int>(cuda::read_backward(problem(offset, mask, sizes), rows(sizes), input, columns_grad,      \
                                                reinterpret_cast<SampleGrad<A>*>(grads), nullptr));                  \
  }                                                                                                                  \
  extern "C" int scatter_##name(const A* offset, const A* mask, const int64_t* sizes, const T* columns_grad,         \
                                A* sums) {                                                                           \
    return static_cast<int>(cuda::scatter(problem(offset, mask, sizes), rows(sizes), columns_grad, sums, nullptr));  \
  }                                                                                                                  \
  extern "C" int scatter_in_order_##name(const A* offset, const A* mask, const int64_t* sizes,                       \
                                         const T* columns_grad, const int64_t* order, const int64_t* begins,         \
                                         A* sums) {                                                                  \
    return static_cast<int>(cuda::scatter_in_order(problem(offset, mask, sizes), rows(sizes), columns_grad, order,   \
                                                   begins, sums, nullptr));                                          \
  }                                                                                                                  \
  extern "C" int write_keys_##name(const A* offset, const A* mask, const int64_t* sizes, int64_t* keys) {            \
    return static_cast<int>(cuda::write_keys(problem(offset, mask, sizes), rows(sizes), keys, nullptr));             \
  }

DEFINE(float32, float, float)
DEFINE(float64, double, double)
DEFINE(float16, mrcnn::Half, float)
DEFINE(bfloat16, mrcnn::BFloat16, float)
