// Checks of the arguments of mrcnn::match_boxes on every device; the schema stands in maskrcnn_benchmark/ops/match.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"

namespace mrcnn::match {

// boxes: [P, 4] or [N, P, 4]. gt_boxes: [N, G, 4]. gt_valid: [N, G].
inline void check(const at::Tensor& boxes, const at::Tensor& gt_boxes, const at::Tensor& gt_valid, double high,
                  double low) {
  TORCH_CHECK_VALUE(gt_boxes.dim() == 3 && gt_boxes.size(2) == 4,
                    "match_boxes: gt_boxes must have the shape [N, G, 4], got ", gt_boxes.sizes());
  TORCH_CHECK_VALUE(gt_valid.sizes() == gt_boxes.sizes().slice(0, 2), "match_boxes: gt_valid must have the shape [",
                    gt_boxes.size(0), ", ", gt_boxes.size(1), "], got ", gt_valid.sizes());
  TORCH_CHECK_VALUE((boxes.dim() == 2 || (boxes.dim() == 3 && boxes.size(0) == gt_boxes.size(0))) &&
                        boxes.sizes().back() == 4,
                    "match_boxes: boxes must have the shape [P, 4] or [", gt_boxes.size(0), ", P, 4], got ",
                    boxes.sizes());
  TORCH_CHECK_TYPE(boxes.scalar_type() == at::kFloat, "match_boxes: boxes must be float32, got ", boxes.scalar_type());
  TORCH_CHECK_TYPE(gt_boxes.scalar_type() == at::kFloat, "match_boxes: gt_boxes must be float32, got ",
                   gt_boxes.scalar_type());
  TORCH_CHECK_TYPE(gt_valid.scalar_type() == at::kBool, "match_boxes: gt_valid must be bool, got ",
                   gt_valid.scalar_type());
  check_same_device("match_boxes", {{"boxes", boxes}, {"gt_boxes", gt_boxes}, {"gt_valid", gt_valid}});
  TORCH_CHECK_VALUE(low <= high, "match_boxes: low (", low, ") must not exceed high (", high, ")");
}

}  // namespace mrcnn::match
