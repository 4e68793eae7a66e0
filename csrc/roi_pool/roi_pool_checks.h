// Checks of the arguments of ROIPool on every device; they look at no value. The schema stands in
// maskrcnn_benchmark/ops/roi_pool.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"
#include "../common/roi_checks.h"

namespace mrcnn::roi_pool {

constexpr const char* kOp = "roi_pool";

// features: [N, C, H, W]. rois: [R, 5].
inline void check(const at::Tensor& features, const at::Tensor& rois, at::IntArrayRef output_size) {
  TORCH_CHECK_VALUE(features.dim() == 4 && features.size(2) > 0 && features.size(3) > 0, kOp,
                    ": features must have the shape [N, C, H, W] with H, W > 0, got ", features.sizes());
  TORCH_CHECK_VALUE(features.size(2) * features.size(3) <= INT32_MAX, kOp, ": a feature map may hold ", INT32_MAX,
                    " pixels at most, got ", features.sizes());
  TORCH_CHECK_VALUE(output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0, kOp,
                    ": output_size must be two positive numbers, got ", output_size);
  check_rois(kOp, rois, features.scalar_type());
  check_same_device(kOp, {{"features", features}, {"rois", rois}});
}

// grad, argmax: [R, C, ph, pw]. rois: [R, 5].
inline void check_backward(const at::Tensor& grad, const at::Tensor& argmax, const at::Tensor& rois) {
  check_rois(kOp, rois, grad.scalar_type());
  TORCH_CHECK_VALUE(grad.dim() == 4 && grad.size(0) == rois.size(0), kOp,
                    ": grad must have the shape [R, C, ph, pw], got ", grad.sizes());
  TORCH_CHECK_VALUE(argmax.sizes() == grad.sizes(), kOp, ": argmax must have the shape ", grad.sizes(), ", got ",
                    argmax.sizes());
  TORCH_CHECK_TYPE(argmax.scalar_type() == at::kInt, kOp, ": argmax must be int32, got ", argmax.scalar_type());
  check_same_device(kOp, {{"grad", grad}, {"argmax", argmax}, {"rois", rois}});
}

}  // namespace mrcnn::roi_pool
