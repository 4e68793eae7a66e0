// Checks of the arguments of mrcnn::sigmoid_focal_loss on every device; they look at no value. The schema stands in
// maskrcnn_benchmark/ops/sigmoid_focal_loss.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"
#include "../common/dispatch.h"

namespace mrcnn::sigmoid_focal_loss {

constexpr const char* kOp = "sigmoid_focal_loss";

// logits: [R, K]. targets: [R].
inline void check(const at::Tensor& logits, const at::Tensor& targets, double gamma) {
  TORCH_CHECK_VALUE(logits.dim() == 2, kOp, ": logits must have the shape [R, K], got ", logits.sizes());
  TORCH_CHECK_VALUE(logits.size(1) < INT32_MAX, kOp, ": there may be ", INT32_MAX - 1, " classes at most, got ",
                    logits.size(1));
  TORCH_CHECK_VALUE(targets.dim() == 1 && targets.size(0) == logits.size(0), kOp, ": targets must have the shape [",
                    logits.size(0), "], got ", targets.sizes());
  TORCH_CHECK_TYPE(targets.scalar_type() == at::kLong, kOp, ": targets must be int64, got ", targets.scalar_type());
  check_same_device(kOp, {{"logits", logits}, {"targets", targets}});
  TORCH_CHECK_VALUE(gamma >= 0, kOp, ": gamma must be at least 0, got ", gamma);
}

// grad: the gradient of the sum.
inline void check_backward(const at::Tensor& grad, const at::Tensor& logits, const at::Tensor& targets, double gamma) {
  check(logits, targets, gamma);
  TORCH_CHECK_VALUE(grad.dim() == 0, kOp, ": grad must have the shape [], got ", grad.sizes());
  TORCH_CHECK_TYPE(grad.scalar_type() == accumulate_dtype(logits.scalar_type()), kOp, ": grad must be ",
                   accumulate_dtype(logits.scalar_type()), ", got ", grad.scalar_type());
  check_same_device(kOp, {{"grad", grad}, {"logits", logits}});
}

}  // namespace mrcnn::sigmoid_focal_loss
