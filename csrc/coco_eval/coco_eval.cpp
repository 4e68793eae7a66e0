// Host side of the ops of COCO's evaluation on CPUs: checks, memory, threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>
#include <tuple>
#include <vector>

#include "../common/parallel.h"
#include "coco_eval_cpu.h"

namespace mrcnn {

namespace {

using coco_eval::Group;
using coco_eval::Outline;
using coco_eval::Scratch;
using coco_eval::Texts;

void check(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type, int64_t dims) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == type, op, ": ", name, " must be ", type, ", got ", tensor.scalar_type());
  TORCH_CHECK_VALUE(tensor.dim() == dims, op, ": ", name, " must have ", dims, " dimensions, got ", tensor.sizes());
}

// Ascending from 0 to `end`.
void check_offsets(const char* op, const char* name, const at::Tensor& offsets, int64_t end) {
  check(op, name, offsets, at::kLong, 1);
  const int64_t count = offsets.size(0);
  TORCH_CHECK_VALUE(count >= 1, op, ": ", name, " must not be empty");
  const int64_t* data = offsets.const_data_ptr<int64_t>();
  bool ascends = data[0] == 0 && data[count - 1] == end;
  for (int64_t index = 1; index < count; ++index) ascends = ascends && data[index - 1] <= data[index];
  TORCH_CHECK_VALUE(ascends, op, ": ", name, " must ascend from 0 to ", end);
}

// Run lengths in one tensor, with their data dense.
class TextTensors {
 public:
  TextTensors(const char* op, const at::Tensor& text, const at::Tensor& offsets)
      : text_(text.contiguous()), offsets_(offsets.contiguous()) {
    check(op, "text", text_, at::kByte, 1);
    check_offsets(op, "offsets", offsets_, text_.size(0));
  }

  int64_t size() const { return offsets_.size(0) - 1; }
  Texts view() const { return {text_.const_data_ptr<uint8_t>(), offsets_.const_data_ptr<int64_t>()}; }

 private:
  at::Tensor text_, offsets_;
};

// Detections and objects, image by image and category by category.
class Groups {
 public:
  Groups(const char* op, const at::Tensor& detections, const at::Tensor& objects, int64_t num_detections,
         int64_t num_objects)
      : detections_(detections.contiguous()), objects_(objects.contiguous()) {
    check_offsets(op, "dt_groups", detections_, num_detections);
    check_offsets(op, "gt_groups", objects_, num_objects);
    TORCH_CHECK_VALUE(detections_.size(0) == objects_.size(0), op, ": dt_groups and gt_groups must be of one length");
    pairs_.push_back(0);
    for (int64_t n = 0; n < size(); ++n) pairs_.push_back(pairs_[n] + num_detections_of(n) * num_objects_of(n));
  }

  int64_t size() const { return detections_.size(0) - 1; }
  int64_t first_detection(int64_t n) const { return detections_.const_data_ptr<int64_t>()[n]; }
  int64_t first_object(int64_t n) const { return objects_.const_data_ptr<int64_t>()[n]; }
  int64_t num_detections_of(int64_t n) const { return first_detection(n + 1) - first_detection(n); }
  int64_t num_objects_of(int64_t n) const { return first_object(n + 1) - first_object(n); }
  int64_t first_pair(int64_t n) const { return pairs_[n]; }
  int64_t num_pairs() const { return pairs_.back(); }

 private:
  at::Tensor detections_, objects_;
  std::vector<int64_t> pairs_;
};

std::tuple<at::Tensor, at::Tensor> rasterize_polygons(const at::Tensor& coords, const at::Tensor& ring_offsets,
                                                      const at::Tensor& instance_offsets, const at::Tensor& sizes) {
  const char* op = "rasterize_polygons";
  check(op, "coords", coords, at::kDouble, 2);
  TORCH_CHECK_VALUE(coords.size(1) == 2, op, ": coords must have the shape [V, 2], got ", coords.sizes());
  check(op, "sizes", sizes, at::kLong, 2);
  const at::Tensor points = coords.contiguous(), rings = ring_offsets.contiguous();
  const at::Tensor instances = instance_offsets.contiguous(), extents = sizes.contiguous();
  check_offsets(op, "ring_offsets", rings, points.size(0));
  check_offsets(op, "instance_offsets", instances, rings.size(0) - 1);
  const int64_t count = instances.size(0) - 1;
  TORCH_CHECK_VALUE(extents.size(0) == count && extents.size(1) == 2, op, ": sizes must have the shape [", count,
                    ", 2], got ", extents.sizes());
  const auto* size = extents.const_data_ptr<int64_t>();
  for (int64_t index = 0; index < count; ++index) {
    const int64_t height = size[index * 2], width = size[index * 2 + 1];
    TORCH_CHECK_VALUE(height >= 1 && width >= 1 && height < (int64_t{1} << 32) / width, op,
                      ": sizes must be positive with fewer than 2^32 pixels, got ", height, " x ", width);
  }
  const auto* first = instances.const_data_ptr<int64_t>();
  std::vector<std::vector<uint8_t>> texts(count);
  for_each_item(
      count, [] { return Scratch(); },
      [&](Scratch& scratch, int64_t index) {
        const Outline outline{points.const_data_ptr<double>(), rings.const_data_ptr<int64_t>() + first[index],
                              first[index + 1] - first[index], size[index * 2], size[index * 2 + 1]};
        texts[index] = coco_eval::rasterize(outline, scratch);
      });
  at::Tensor offsets = at::empty({count + 1}, instances.options());
  auto* ends = offsets.mutable_data_ptr<int64_t>();
  ends[0] = 0;
  for (int64_t index = 0; index < count; ++index) {
    ends[index + 1] = ends[index] + static_cast<int64_t>(texts[index].size());
  }
  at::Tensor text = at::empty({ends[count]}, coords.options().dtype(at::kByte));
  auto* bytes = text.mutable_data_ptr<uint8_t>();
  for (int64_t index = 0; index < count; ++index) {
    std::memcpy(bytes + ends[index], texts[index].data(), texts[index].size());
  }
  return {text, offsets};
}

at::Tensor rle_areas(const at::Tensor& text, const at::Tensor& offsets) {
  const TextTensors masks("rle_areas", text, offsets);
  at::Tensor areas = at::empty({masks.size()}, offsets.options());
  auto* data = areas.mutable_data_ptr<int64_t>();
  const Texts view = masks.view();
  at::parallel_for(0, masks.size(), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) data[index] = coco_eval::area(view.begin(index), view.size(index));
  });
  return areas;
}

at::Tensor rle_overlaps(const at::Tensor& dt_text, const at::Tensor& dt_offsets, const at::Tensor& gt_text,
                        const at::Tensor& gt_offsets, const at::Tensor& dt_groups, const at::Tensor& gt_groups,
                        const at::Tensor& gt_crowd) {
  const char* op = "rle_overlaps";
  const TextTensors detections(op, dt_text, dt_offsets), objects(op, gt_text, gt_offsets);
  const Groups groups(op, dt_groups, gt_groups, detections.size(), objects.size());
  check(op, "gt_crowd", gt_crowd, at::kByte, 1);
  TORCH_CHECK_VALUE(gt_crowd.size(0) == objects.size(), op, ": gt_crowd must have the shape [", objects.size(),
                    "], got ", gt_crowd.sizes());
  const at::Tensor crowd = gt_crowd.contiguous();
  at::Tensor ious = at::empty({groups.num_pairs()}, dt_offsets.options().dtype(at::kDouble));
  auto* data = ious.mutable_data_ptr<double>();
  const Texts dt = detections.view(), gt = objects.view();
  for_each_item(
      groups.size(), [] { return Scratch(); },
      [&](Scratch& scratch, int64_t n) {
        const int64_t num_detections = groups.num_detections_of(n), num_objects = groups.num_objects_of(n);
        if (num_detections == 0 || num_objects == 0) return;
        coco_eval::overlaps(dt, groups.first_detection(n), num_detections, gt, groups.first_object(n), num_objects,
                            crowd.const_data_ptr<uint8_t>(), scratch, data + groups.first_pair(n));
      });
  return ious;
}

at::Tensor match_detections(const at::Tensor& ious, const at::Tensor& dt_groups, const at::Tensor& gt_groups,
                            const at::Tensor& gt_ignored, const at::Tensor& gt_crowd, const at::Tensor& thresholds) {
  const char* op = "match_detections";
  check(op, "ious", ious, at::kDouble, 1);
  check(op, "dt_groups", dt_groups, at::kLong, 1);
  check(op, "gt_ignored", gt_ignored, at::kByte, 2);
  check(op, "gt_crowd", gt_crowd, at::kByte, 1);
  check(op, "thresholds", thresholds, at::kDouble, 1);
  TORCH_CHECK_VALUE(dt_groups.size(0) >= 1, op, ": dt_groups must not be empty");
  const int64_t num_areas = gt_ignored.size(0), num_objects = gt_ignored.size(1), num_thresholds = thresholds.size(0);
  const at::Tensor counts = dt_groups.contiguous();
  const int64_t num_detections = counts.const_data_ptr<int64_t>()[counts.size(0) - 1];
  const Groups groups(op, dt_groups, gt_groups, num_detections, num_objects);
  TORCH_CHECK_VALUE(gt_crowd.size(0) == num_objects, op, ": gt_crowd must have the shape [", num_objects, "], got ",
                    gt_crowd.sizes());
  TORCH_CHECK_VALUE(ious.size(0) == groups.num_pairs(), op, ": ious must have the shape [", groups.num_pairs(),
                    "], got ", ious.sizes());
  const at::Tensor overlaps = ious.contiguous(), ignored = gt_ignored.contiguous(), crowd = gt_crowd.contiguous();
  const at::Tensor limits = thresholds.contiguous();
  at::Tensor matches = at::empty({num_areas, num_thresholds, num_detections}, dt_groups.options().dtype(at::kInt));
  auto* data = matches.mutable_data_ptr<int32_t>();
  for_each_item(
      groups.size(), [] { return Scratch(); },
      [&](Scratch& scratch, int64_t n) {
        const int64_t first = groups.first_object(n), begin = groups.first_detection(n);
        const int64_t count = groups.num_detections_of(n);
        for (int64_t a = 0; a < num_areas; ++a) {
          const Group group{overlaps.const_data_ptr<double>() + groups.first_pair(n), count, groups.num_objects_of(n),
                            ignored.const_data_ptr<uint8_t>() + a * num_objects + first,
                            crowd.const_data_ptr<uint8_t>() + first};
          for (int64_t t = 0; t < num_thresholds; ++t) {
            int32_t* own = data + (a * num_thresholds + t) * num_detections + begin;
            coco_eval::match(group, limits.const_data_ptr<double>()[t], scratch, own);
            for (int64_t d = 0; d < count; ++d) own[d] = own[d] < 0 ? -1 : own[d] + static_cast<int32_t>(first);
          }
        }
      });
  return matches;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("rasterize_polygons", &rasterize_polygons);
  m.impl("rle_areas", &rle_areas);
  m.impl("rle_overlaps", &rle_overlaps);
  m.impl("match_detections", &match_detections);
}

}  // namespace mrcnn
