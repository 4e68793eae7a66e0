// Host side of mrcnn::polygon_mask_targets on CUDA devices: checks, memory, stream. It reads no value back: what the
// CPU refuses with an error, an instance or an offset out of range, gives targets of NaN.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "mask_targets_cuda.h"

namespace mrcnn {

namespace {

constexpr const char* kOp = "polygon_mask_targets";

void check_argument(const at::Tensor& tensor, const char* name, at::ScalarType dtype, const at::Tensor& boxes) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, kOp, ": ", name, " must be ",
                   dtype == at::kLong ? "int64" : "float32", ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.device() == boxes.device(), kOp, ": all tensors must lie on one device, got ", name, " on ",
                    tensor.device(), " and boxes on ", boxes.device());
}

void check_offsets(const at::Tensor& offsets, const char* name, const at::Tensor& boxes) {
  check_argument(offsets, name, at::kLong, boxes);
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.size(0) >= 1, kOp, ": ", name,
                    " must be a vector that starts with 0, got the shape ", offsets.sizes());
}

at::Tensor polygon_mask_targets(const at::Tensor& coords, const at::Tensor& ring_offsets,
                                const at::Tensor& instance_offsets, const at::Tensor& instance_indices,
                                const at::Tensor& boxes, int64_t resolution) {
  TORCH_CHECK_VALUE(coords.dim() == 2 && coords.size(1) == 2, kOp, ": coords must have the shape [V, 2], got ",
                    coords.sizes());
  TORCH_CHECK_VALUE(instance_indices.dim() == 1, kOp, ": instance_indices must have the shape [P], got ",
                    instance_indices.sizes());
  const int64_t num_boxes = instance_indices.size(0);
  TORCH_CHECK_VALUE(boxes.dim() == 2 && boxes.size(0) == num_boxes && boxes.size(1) == 4, kOp,
                    ": boxes must have the shape [", num_boxes, ", 4], got ", boxes.sizes());
  check_argument(coords, "coords", at::kFloat, boxes);
  check_argument(boxes, "boxes", at::kFloat, boxes);
  check_argument(instance_indices, "instance_indices", at::kLong, boxes);
  check_offsets(ring_offsets, "ring_offsets", boxes);
  check_offsets(instance_offsets, "instance_offsets", boxes);
  TORCH_CHECK_VALUE(resolution >= 1, kOp, ": resolution must be at least 1, got ", resolution);
  TORCH_CHECK_VALUE(resolution <= mask_targets::kLargestResolution, kOp, ": resolution must be at most ",
                    mask_targets::kLargestResolution, " on CUDA, got ", resolution);
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
