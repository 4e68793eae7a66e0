// Host side of mrcnn::batched_nms on CUDA devices: checks, memory, stream. It never waits for the device.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "nms_checks.h"
#include "nms_cuda.h"

namespace mrcnn {

namespace {

// The masks of as many rows as are worked off at once: 132 rows of 2000 boxes.
constexpr int64_t kMaskBytes = int64_t{64} << 20;

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& valid, double iou_threshold, int64_t offset) {
  nms::check(boxes, valid, iou_threshold);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const at::Tensor dense_valid = valid.contiguous();
  at::Tensor dense_boxes = boxes.contiguous(), keep = at::empty_like(dense_valid);
  if (keep.numel() == 0) return keep;
  // A view may start between two boxes, where they cannot be read as vectors.
  if (reinterpret_cast<uintptr_t>(dense_boxes.const_data_ptr()) % 16 != 0) dense_boxes = dense_boxes.clone();
  const nms::cuda::Problem problem{dense_boxes.const_data_ptr<float>(),
                                   dense_valid.const_data_ptr<bool>(),
                                   boxes.size(0),
                                   boxes.size(1),
                                   static_cast<float>(iou_threshold),
                                   static_cast<float>(offset)};
  const int64_t words = nms::cuda::mask_words(problem.num_boxes);
  const int64_t fitting = std::max<int64_t>(kMaskBytes / (words * static_cast<int64_t>(sizeof(uint32_t))), 1);
  const int64_t rows_at_once = std::min(fitting, problem.num_rows);
  const at::Tensor masks = at::empty({rows_at_once * words}, boxes.options().dtype(at::kInt));
  C10_CUDA_CHECK(nms::cuda::suppress(problem, rows_at_once, static_cast<uint32_t*>(masks.mutable_data_ptr()),
                                     keep.mutable_data_ptr<bool>(), c10::cuda::getCurrentCUDAStream()));
  return keep;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) { m.impl("batched_nms", &batched_nms); }

}  // namespace mrcnn
