// Host side of mrcnn::match_boxes on CUDA devices: checks, memory, stream. It never waits for the device.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "match_checks.h"
#include "match_cuda.h"

namespace mrcnn {

namespace {

// Dense, and from an address where boxes can be read as vectors: a view may start between two boxes.
at::Tensor dense_boxes(const at::Tensor& boxes) {
  const at::Tensor dense = boxes.contiguous();
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : dense.clone();
}

at::Tensor match_boxes(const at::Tensor& boxes, const at::Tensor& gt_boxes, const at::Tensor& gt_valid, double high,
                       double low, bool allow_low_quality, int64_t offset) {
  match::check(boxes, gt_boxes, gt_valid, high, low);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const at::Tensor own_boxes = dense_boxes(boxes), own_gt = dense_boxes(gt_boxes), own_valid = gt_valid.contiguous();
  const int64_t num_images = gt_boxes.size(0), num_truths = gt_boxes.size(1), num_boxes = boxes.size(-2);
  const match::cuda::Problem problem{own_boxes.const_data_ptr<float>(),
                                     boxes.dim() == 2 ? 0 : num_boxes * 4,
                                     own_gt.const_data_ptr<float>(),
                                     own_valid.const_data_ptr<bool>(),
                                     num_images,
                                     num_boxes,
                                     num_truths,
                                     static_cast<float>(high),
                                     static_cast<float>(low),
                                     static_cast<float>(offset)};
  at::Tensor matches = at::empty({num_images, num_boxes}, boxes.options().dtype(at::kLong));
  match::cuda::Scratch scratch{};
  at::Tensor best, chunk_best, gt_best;
  if (allow_low_quality) {
    const auto options = boxes.options().dtype(at::kInt);
    best = at::empty({num_images, num_boxes}, options);
    chunk_best = at::empty({num_images, problem.num_chunks(), num_truths}, options);
    gt_best = at::empty({num_images, num_truths}, options);
    scratch = {best.mutable_data_ptr<int32_t>(), static_cast<uint32_t*>(chunk_best.mutable_data_ptr()),
               static_cast<uint32_t*>(gt_best.mutable_data_ptr())};
  }
  C10_CUDA_CHECK(match::cuda::match_boxes(problem, scratch, matches.mutable_data_ptr<int64_t>(),
                                          c10::cuda::getCurrentCUDAStream()));
  return matches;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) { m.impl("match_boxes", &match_boxes); }

}  // namespace mrcnn
