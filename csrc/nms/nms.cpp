// Host side of mrcnn::batched_nms on CPUs: checks, memory, threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "../common/parallel.h"
#include "nms_cpu.h"

namespace mrcnn {

namespace {

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& valid, double iou_threshold, int64_t offset) {
  TORCH_CHECK_VALUE(boxes.dim() == 3 && boxes.size(2) == 4, "batched_nms: boxes must have the shape [B, K, 4], got ",
                    boxes.sizes());
  TORCH_CHECK_VALUE(valid.sizes() == boxes.sizes().slice(0, 2), "batched_nms: valid must have the shape [",
                    boxes.size(0), ", ", boxes.size(1), "], got ", valid.sizes());
  TORCH_CHECK_TYPE(boxes.scalar_type() == at::kFloat, "batched_nms: boxes must be float32, got ", boxes.scalar_type());
  TORCH_CHECK_TYPE(valid.scalar_type() == at::kBool, "batched_nms: valid must be bool, got ", valid.scalar_type());
  TORCH_CHECK_VALUE(iou_threshold >= 0, "batched_nms: iou_threshold must be at least 0, got ", iou_threshold);
  const at::Tensor dense_boxes = boxes.contiguous(), dense_valid = valid.contiguous();
  at::Tensor keep = at::empty_like(dense_valid);
  const int64_t num_boxes = boxes.size(1);
  const float* box_data = dense_boxes.const_data_ptr<float>();
  const bool* valid_data = dense_valid.const_data_ptr<bool>();
  bool* keep_data = keep.mutable_data_ptr<bool>();
  for_each_item(
      boxes.size(0), [] { return std::vector<BoxBlock>(); },
      [&](std::vector<BoxBlock>& kept, int64_t row) {
        nms::suppress_row(box_data + row * num_boxes * 4, valid_data + row * num_boxes, num_boxes,
                          static_cast<float>(iou_threshold), static_cast<float>(offset), kept,
                          keep_data + row * num_boxes);
      });
  return keep;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) { m.impl("batched_nms", &batched_nms); }

}  // namespace mrcnn
