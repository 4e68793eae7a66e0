// Checks of the arguments of mrcnn::batched_nms on every device; the schema stands in maskrcnn_benchmark/ops/nms.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"

namespace mrcnn::nms {

// boxes: [B, K, 4]. valid: [B, K].
inline void check(const at::Tensor& boxes, const at::Tensor& valid, double iou_threshold) {
  TORCH_CHECK_VALUE(boxes.dim() == 3 && boxes.size(2) == 4, "batched_nms: boxes must have the shape [B, K, 4], got ",
                    boxes.sizes());
  TORCH_CHECK_VALUE(valid.sizes() == boxes.sizes().slice(0, 2), "batched_nms: valid must have the shape [",
                    boxes.size(0), ", ", boxes.size(1), "], got ", valid.sizes());
  TORCH_CHECK_TYPE(boxes.scalar_type() == at::kFloat, "batched_nms: boxes must be float32, got ", boxes.scalar_type());
  TORCH_CHECK_TYPE(valid.scalar_type() == at::kBool, "batched_nms: valid must be bool, got ", valid.scalar_type());
  check_same_device("batched_nms", {{"boxes", boxes}, {"valid", valid}});
  TORCH_CHECK_VALUE(iou_threshold >= 0, "batched_nms: iou_threshold must be at least 0, got ", iou_threshold);
}

}  // namespace mrcnn::nms
