// Checks of the arguments of mrcnn::winograd_conv; the schema and the text of the messages stand in
// maskrcnn_benchmark/ops/winograd.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "../common/checks.h"
#include "winograd_cpu.h"

namespace mrcnn::winograd {

constexpr const char* kOp = "winograd_conv";

inline void check_floats(const char* name, const at::Tensor& tensor, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(tensor.sizes() == shape, kOp, ": ", name, " must have the shape ", shape, ", got ",
                    tensor.sizes());
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat, kOp, ": ", name, " must be float32, got ",
                   tensor.scalar_type());
}

inline void check(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& scale,
                  const std::optional<at::Tensor>& bias) {
  TORCH_CHECK_VALUE(input.dim() == 4, kOp, ": input must have the shape [N, C, H, W], got ", input.sizes());
  check_floats("input", input, input.sizes());
  const int64_t channels = input.size(1);
  TORCH_CHECK_VALUE(weight.dim() == 4, kOp, ": weight must have the shape [O, ", channels, ", 3, 3], got ",
                    weight.sizes());
  const int64_t outputs = weight.size(0);
  check_floats("weight", weight, {outputs, channels, 3, 3});
  TORCH_CHECK_VALUE(channels % kChannelBlock == 0 && outputs % kChannelBlock == 0, kOp,
                    ": channels must be multiples of ", kChannelBlock, ", got ", channels, " and ", outputs);
  if (scale) check_floats("scale", *scale, {outputs});
  if (bias) check_floats("bias", *bias, {outputs});
  check_same_device(kOp, {{"input", input},
                          {"weight", weight},
                          {"scale", scale ? *scale : input},
                          {"bias", bias ? *bias : input}});
}

inline void check_grad(const at::Tensor& grad, const std::optional<at::Tensor>& output, const at::Tensor& input,
                       const at::Tensor& weight) {
  const int64_t shape[] = {input.size(0), weight.size(0), input.size(2), input.size(3)};
  check_floats("grad", grad, shape);
  if (output) check_floats("output", *output, shape);
  check_same_device(kOp, {{"grad", grad}, {"output", output ? *output : grad}, {"input", input}});
}

}  // namespace mrcnn::winograd
