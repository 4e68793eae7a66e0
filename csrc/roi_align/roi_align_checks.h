// Checks of the arguments of ROIAlign on every device; they look at no value. The schema stands in
// maskrcnn_benchmark/ops/roi_align.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "../common/checks.h"
#include "../common/roi_checks.h"

namespace mrcnn::roi_align {

constexpr const char* kOp = "roi_align";

// rois: [R, 5]. levels: [R], or none for a single map.
inline void check_roi_levels(const at::Tensor& rois, const std::optional<at::Tensor>& levels, size_t num_levels,
                             at::ScalarType dtype) {
  check_rois(kOp, rois, dtype);
  TORCH_CHECK_VALUE(levels.has_value() || num_levels == 1, kOp, ": levels are needed for ", num_levels,
                    " feature maps");
  if (!levels) return;
  TORCH_CHECK_VALUE(levels->dim() == 1 && levels->size(0) == rois.size(0), kOp, ": levels must have the shape [",
                    rois.size(0), "], got ", levels->sizes());
  TORCH_CHECK_TYPE(levels->scalar_type() == at::kLong, kOp, ": levels must be int64, got ", levels->scalar_type());
  check_same_device(kOp, {{"rois", rois}, {"levels", *levels}});
}

// features: [N, C, H_l, W_l], one map a level.
inline void check(at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
                  at::IntArrayRef output_size, at::ArrayRef<double> scales, int64_t sampling_ratio) {
  TORCH_CHECK_VALUE(!features.empty() && features.size() == scales.size(), kOp,
                    ": one spatial scale per feature map is needed, got ", features.size(), " maps and ", scales.size(),
                    " scales");
  TORCH_CHECK_VALUE(output_size.size() == 2 && output_size[0] > 0 && output_size[1] > 0, kOp,
                    ": output_size must be two positive numbers, got ", output_size);
  TORCH_CHECK_VALUE(sampling_ratio >= 0, kOp, ": sampling_ratio must be 0 or more, got ", sampling_ratio);
  const at::Tensor& finest = features[0];
  for (const at::Tensor& map : features) {
    const bool fits = finest.dim() == 4 && map.dim() == 4 && map.size(0) == finest.size(0) &&
                      map.size(1) == finest.size(1) && map.size(2) > 0 && map.size(3) > 0;
    TORCH_CHECK_VALUE(fits, kOp, ": each feature map must have the shape [", finest.dim() > 0 ? finest.size(0) : 0,
                      ", ", finest.dim() > 1 ? finest.size(1) : 0, ", H, W] with H, W > 0, got ", map.sizes());
    TORCH_CHECK_TYPE(map.scalar_type() == finest.scalar_type(), kOp, ": all feature maps must have one dtype, got ",
                     finest.scalar_type(), " and ", map.scalar_type());
    check_same_device(kOp, {{"features", map}, {"rois", rois}});
  }
  check_roi_levels(rois, levels, features.size(), finest.scalar_type());
}

// grad: [R, C, ph, pw].
inline void check_backward(const at::Tensor& grad, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
                           at::IntArrayRef heights, at::IntArrayRef widths, at::ArrayRef<double> scales) {
  TORCH_CHECK_VALUE(!heights.empty() && heights.size() == widths.size() && heights.size() == scales.size(), kOp,
                    ": one height, width and scale per level are needed");
  check_roi_levels(rois, levels, heights.size(), grad.scalar_type());
  TORCH_CHECK_VALUE(grad.dim() == 4 && grad.size(0) == rois.size(0), kOp,
                    ": grad must have the shape [R, C, ph, pw], got ", grad.sizes());
  check_same_device(kOp, {{"grad", grad}, {"rois", rois}});
}

}  // namespace mrcnn::roi_align
