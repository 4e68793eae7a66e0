// Host side of mrcnn::batched_nms on CPUs: checks, memory, threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "../common/parallel.h"
#include "nms_checks.h"
#include "nms_cpu.h"

namespace mrcnn {

namespace {

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& valid, double iou_threshold, int64_t offset) {
  nms::check(boxes, valid, iou_threshold);
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
