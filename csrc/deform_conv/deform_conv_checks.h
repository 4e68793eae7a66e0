// Checks of the arguments of deformable convolution on every device; they look at no value. The schema stands in
// maskrcnn_benchmark/ops/deform_conv.py, the text of the messages in _deform_conv_plain.py beside it.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>

#include "../common/checks.h"
#include "../common/dispatch.h"

namespace mrcnn::deform_conv {

constexpr const char* kOp = "deform_conv";

// The arguments of the op beside its tensors: (y, x) each.
struct Settings {
  at::IntArrayRef stride, padding, dilation;
  int64_t groups, deformable_groups;
};

inline void check_pair(const char* name, at::IntArrayRef value, int64_t least) {
  TORCH_CHECK_VALUE(value.size() == 2 && std::min(value[0], value[1]) >= least, kOp, ": ", name,
                    " must be two numbers of at least ", least, ", got ", value);
}

inline void check_map(const char* name, const at::Tensor& map, at::IntArrayRef shape, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(map.sizes() == shape, kOp, ": ", name, " must have the shape ", shape, ", got ", map.sizes());
  TORCH_CHECK_TYPE(map.scalar_type() == dtype, kOp, ": ", name, " must be ", dtype, ", got ", map.scalar_type());
}

inline int64_t output_length(const at::Tensor& input, const at::Tensor& weight, const Settings& settings,
                             int64_t axis) {
  const int64_t reach = settings.dilation[axis] * (weight.size(2 + axis) - 1) + 1;
  const int64_t room = input.size(2 + axis) + 2 * settings.padding[axis] - reach;
  return room < 0 ? 0 : room / settings.stride[axis] + 1;
}

inline void check_weight(const at::Tensor& input, const at::Tensor& weight, int64_t groups) {
  const int64_t channels = input.size(1) / groups;
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(1) == channels, kOp, ": weight must have the shape [O, ", channels,
                    ", kh, kw], got ", weight.sizes());
  TORCH_CHECK_TYPE(weight.scalar_type() == input.scalar_type(), kOp, ": weight must be ", input.scalar_type(),
                   ", got ", weight.scalar_type());
  TORCH_CHECK_VALUE(weight.size(0) % groups == 0, kOp, ": ", weight.size(0),
                    " output channels must divide into groups (", groups, ")");
}

inline void check(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                  const std::optional<at::Tensor>& mask, const Settings& settings) {
  TORCH_CHECK_VALUE(input.dim() == 4, kOp, ": input must have the shape [N, C, H, W], got ", input.sizes());
  const at::ScalarType type = input.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, kOp,
                   ": input must be float32 or float64 or float16 or bfloat16, got ", type);
  check_pair("stride", settings.stride, 1);
  check_pair("padding", settings.padding, 0);
  check_pair("dilation", settings.dilation, 1);
  const int64_t channels = input.size(1), groups = settings.groups, parts = settings.deformable_groups;
  TORCH_CHECK_VALUE(groups > 0 && parts > 0 && channels % groups == 0 && channels % parts == 0, kOp, ": ", channels,
                    " channels must divide into groups (", groups, ") and deformable_groups (", parts, ")");
  check_weight(input, weight, groups);
  TORCH_CHECK_VALUE(input.size(0) * input.size(2) * input.size(3) <= INT32_MAX, kOp, ": an input may hold ", INT32_MAX,
                    " pixels at most, got ", input.sizes());
  const int64_t height = output_length(input, weight, settings, 0), width = output_length(input, weight, settings, 1);
  const int64_t taps = weight.size(2) * weight.size(3);
  TORCH_CHECK_VALUE(taps > 0 && height > 0 && width > 0, kOp, ": the kernel ", weight.sizes().slice(2),
                    " does not fit the padded input ", input.sizes());
  const at::ScalarType precise = accumulate_dtype(type);
  check_map("offset", offset, {input.size(0), 2 * parts * taps, height, width}, precise);
  if (!mask) return check_same_device(kOp, {{"input", input}, {"weight", weight}, {"offset", offset}});
  check_map("mask", *mask, {input.size(0), parts * taps, height, width}, precise);
  check_same_device(kOp, {{"input", input}, {"weight", weight}, {"offset", offset}, {"mask", *mask}});
}

inline void check_grad(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight,
                       const at::Tensor& offset) {
  check_map("grad", grad, {input.size(0), weight.size(0), offset.size(2), offset.size(3)}, input.scalar_type());
  check_same_device(kOp, {{"input", input}, {"grad", grad}});
}

}  // namespace mrcnn::deform_conv
