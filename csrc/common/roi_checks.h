// Checks of the rois that the host files of ROIAlign and ROIPool share; the text is that of ops/_checks.py.
#pragma once

#include <ATen/core/Tensor.h>

#include "dispatch.h"

namespace mrcnn {

// rois: [R, 5] batch index, x1, y1, x2, y2 in the dtype that goes with features of `dtype`.
inline void check_rois(const char* op, const at::Tensor& rois, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(rois.dim() == 2 && rois.size(1) == 5, op, ": rois must have the shape [R, 5], got ", rois.sizes());
  TORCH_CHECK_TYPE(rois.scalar_type() == accumulate_dtype(dtype), op, ": rois must be ", accumulate_dtype(dtype),
                   " for features of ", dtype, ", got ", rois.scalar_type());
}

// rois: of `check_rois`, on the CPU, for their values are looked at.
inline void check_images(const char* op, const at::Tensor& rois, int64_t num_images) {
  const at::Tensor batch = rois.select(1, 0).to(at::kDouble).contiguous();
  for (int64_t roi = 0; roi < rois.size(0); ++roi) {
    const double image = batch.const_data_ptr<double>()[roi];
    TORCH_CHECK_VALUE(!(image >= static_cast<double>(num_images)), op, ": roi ", roi, " belongs to image ", image,
                      ", but the features hold ", num_images);
  }
}

// The layout of `map` as ops/_checks.py:memory_format_of reads it: ambiguous ones count as contiguous.
inline at::MemoryFormat memory_format_of(const at::Tensor& map) {
  return !map.is_contiguous() && map.is_contiguous(at::MemoryFormat::ChannelsLast) ? at::MemoryFormat::ChannelsLast
                                                                                   : at::MemoryFormat::Contiguous;
}

}  // namespace mrcnn
