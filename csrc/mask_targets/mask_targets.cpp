// Host side of mrcnn::polygon_mask_targets on CPUs: checks, memory, threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../common/parallel.h"
#include "mask_targets_checks.h"
#include "mask_targets_cpu.h"

namespace mrcnn {

namespace {

// offsets: contiguous. They bound every read, so their values are looked at.
void check_values(const at::Tensor& offsets, const char* name, int64_t length) {
  const int64_t* values = offsets.const_data_ptr<int64_t>();
  const int64_t count = offsets.size(0);
  bool ascends = values[0] == 0 && values[count - 1] <= length;
  for (int64_t index = 1; index < count; ++index) ascends = ascends && values[index - 1] <= values[index];
  TORCH_CHECK_VALUE(ascends, mask_targets::kOp, ": ", name, " must ascend from 0 to at most ", length);
}

at::Tensor polygon_mask_targets(const at::Tensor& coords, const at::Tensor& ring_offsets,
                                const at::Tensor& instance_offsets, const at::Tensor& instance_indices,
                                const at::Tensor& boxes, int64_t resolution) {
  mask_targets::check(coords, ring_offsets, instance_offsets, instance_indices, boxes, resolution);
  const int64_t num_boxes = instance_indices.size(0);
  const at::Tensor dense_coords = coords.contiguous(), dense_boxes = boxes.contiguous();
  const at::Tensor rings = ring_offsets.contiguous(), instances = instance_offsets.contiguous();
  const at::Tensor indices = instance_indices.contiguous();
  check_values(rings, "ring_offsets", coords.size(0));
  check_values(instances, "instance_offsets", rings.size(0) - 1);
  const int64_t* index_data = indices.const_data_ptr<int64_t>();
  const int64_t num_instances = instances.size(0) - 1;
  for (int64_t index = 0; index < num_boxes; ++index) {
    TORCH_CHECK_VALUE(index_data[index] < num_instances, mask_targets::kOp, ": instance index ", index_data[index],
                      " is out of range for ", num_instances, " instances");
  }
  at::Tensor targets = at::empty({num_boxes, resolution, resolution}, boxes.options());
  const mask_targets::Polygons polygons{dense_coords.const_data_ptr<float>(), rings.const_data_ptr<int64_t>(),
                                        instances.const_data_ptr<int64_t>()};
  const float* box_data = dense_boxes.const_data_ptr<float>();
  float* target_data = targets.mutable_data_ptr<float>();
  for_each_item(
      num_boxes, [] { return mask_targets::Bitmaps(); },
      [&](mask_targets::Bitmaps& bitmaps, int64_t index) {
        mask_targets::fill_target(polygons, index_data[index], box_data + index * 4, resolution, bitmaps,
                                  target_data + index * resolution * resolution);
      });
  return targets;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) { m.impl("polygon_mask_targets", &polygon_mask_targets); }

}  // namespace mrcnn
