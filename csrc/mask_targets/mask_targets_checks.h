// Checks of the arguments of mrcnn::polygon_mask_targets on every device; they look at no value. The schema stands in
// maskrcnn_benchmark/ops/mask_targets.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "../common/checks.h"

namespace mrcnn::mask_targets {

constexpr const char* kOp = "polygon_mask_targets";

inline void check_dtype(const at::Tensor& tensor, const char* name, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, kOp, ": ", name, " must be ",
                   dtype == at::kLong ? "int64" : "float32", ", got ", tensor.scalar_type());
}

inline void check_offsets(const at::Tensor& offsets, const char* name) {
  check_dtype(offsets, name, at::kLong);
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.size(0) >= 1, kOp, ": ", name,
                    " must be a vector that starts with 0, got the shape ", offsets.sizes());
}

// coords: [V, 2]. instance_indices: [P]. boxes: [P, 4].
inline void check(const at::Tensor& coords, const at::Tensor& ring_offsets, const at::Tensor& instance_offsets,
                  const at::Tensor& instance_indices, const at::Tensor& boxes, int64_t resolution) {
  TORCH_CHECK_VALUE(coords.dim() == 2 && coords.size(1) == 2, kOp, ": coords must have the shape [V, 2], got ",
                    coords.sizes());
  TORCH_CHECK_VALUE(instance_indices.dim() == 1, kOp, ": instance_indices must have the shape [P], got ",
                    instance_indices.sizes());
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(0) == instance_indices.size(0) && boxes.size(1) == 4, kOp,
                    ": boxes must have the shape [", instance_indices.size(0), ", 4], got ", boxes.sizes());
  check_dtype(coords, "coords", at::kFloat);
  check_dtype(boxes, "boxes", at::kFloat);
  check_dtype(instance_indices, "instance_indices", at::kLong);
  check_offsets(ring_offsets, "ring_offsets");
  check_offsets(instance_offsets, "instance_offsets");
  check_same_device(kOp, {{"coords", coords},
                          {"ring_offsets", ring_offsets},
                          {"instance_offsets", instance_offsets},
                          {"instance_indices", instance_indices},
                          {"boxes", boxes}});
  TORCH_CHECK_VALUE(resolution >= 1, kOp, ": resolution must be at least 1, got ", resolution);
}

}  // namespace mrcnn::mask_targets
