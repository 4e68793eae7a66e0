// Helpers of the host files, which do know torch: from a tensor's dtype to a kernel's element type.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "half.h"

namespace mrcnn {

template <typename T>
struct TypeTag {
  using type = T;
};

// Calls body(TypeTag<T>{}) with the kernels' element type for `dtype`.
template <typename Body>
void dispatch_floating(at::ScalarType dtype, const char* op, Body&& body) {
  switch (dtype) {
    case at::kFloat:
      return body(TypeTag<float>{});
    case at::kDouble:
      return body(TypeTag<double>{});
    case at::kHalf:
      return body(TypeTag<Half>{});
    case at::kBFloat16:
      return body(TypeTag<BFloat16>{});
    default:
      TORCH_CHECK_TYPE(false, op, ": dtype must be float32, float64, float16 or bfloat16, got ", dtype);
  }
}

// The dtype of coordinates and sums that goes with features of `dtype`.
inline at::ScalarType accumulate_dtype(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace mrcnn
