// Host side of mrcnn::polygon_mask_targets on CUDA devices: checks, memory, stream. It reads no value back: what the
// CPU refuses with an error, an instance or an offset out of range, gives targets of NaN.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "mask_targets_checks.h"
#include "mask_targets_cuda.h"

namespace mrcnn {

namespace {

at::Tensor polygon_mask_targets(const at::Tensor& coords, const at::Tensor& ring_offsets,
                                const at::Tensor& instance_offsets, const at::Tensor& instance_indices,
                                const at::Tensor& boxes, int64_t resolution) {
  mask_targets::check(coords, ring_offsets, instance_offsets, instance_indices, boxes, resolution);
  TORCH_CHECK_VALUE(resolution <= mask_targets::kLargestResolution, mask_targets::kOp, ": resolution must be at most ",
                    mask_targets::kLargestResolution, " on CUDA, got ", resolution);
  const int64_t num_boxes = instance_indices.size(0);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const at::Tensor dense_coords = coords.contiguous(), dense_boxes = boxes.contiguous();
  const at::Tensor rings = ring_offsets.contiguous(), instances = instance_offsets.contiguous();
  const at::Tensor indices = instance_indices.contiguous();
  at::Tensor targets = at::empty({num_boxes, resolution, resolution}, boxes.options());
  const mask_targets::PackedPolygons polygons{dense_coords.const_data_ptr<float>(),  coords.size(0),
                                              rings.const_data_ptr<int64_t>(),       rings.size(0) - 1,
                                              instances.const_data_ptr<int64_t>(),   instances.size(0) - 1};
  C10_CUDA_CHECK(mask_targets::fill_targets(polygons, indices.const_data_ptr<int64_t>(),
                                            dense_boxes.const_data_ptr<float>(), num_boxes, resolution,
                                            targets.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream()));
  return targets;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) { m.impl("polygon_mask_targets", &polygon_mask_targets); }

}  // namespace mrcnn
