// What the host files of deformable convolution share: arguments as the kernels read them, gradients as they write
// them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>
#include <tuple>

#include "../common/roi_checks.h"
#include "deform_conv_checks.h"
#include "deform_conv_geometry.h"

namespace mrcnn::deform_conv {

inline at::Tensor channels_inside(const at::Tensor& map) { return map.contiguous(at::MemoryFormat::ChannelsLast); }

// A map [N, X, OH, OW] as rows [P, X].
inline at::Tensor rows_of(const at::Tensor& map) {
  return channels_inside(map).permute({0, 2, 3, 1}).reshape({-1, map.size(1)});
}

// weight [O, C / G, kh, kw] as matrices [G, O / G, K * C / G].
inline at::Tensor matrices_of(const at::Tensor& weight, int64_t groups) {
  const int64_t outputs = weight.size(0) / groups, taps = weight.size(2) * weight.size(3);
  const at::Tensor matrices = weight.reshape({groups, outputs, weight.size(1), taps}).transpose(2, 3);
  return matrices.reshape({groups, outputs, taps * weight.size(1)}).contiguous();
}

// input, offset, mask: dense with channels last; mask may be undefined.
template <typename A>
Problem<A> make_problem(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                        const at::Tensor& mask, const Settings& settings) {
  return {offset.const_data_ptr<A>(),
          mask.defined() ? mask.const_data_ptr<A>() : nullptr,
          input.size(0),
          input.size(1),
          input.size(2),
          input.size(3),
          offset.size(2),
          offset.size(3),
          weight.size(2),
          weight.size(3),
          settings.stride[0],
          settings.stride[1],
          settings.padding[0],
          settings.padding[1],
          settings.dilation[0],
          settings.dilation[1],
          settings.groups,
          settings.deformable_groups};
}

// The output [P, O] as the op returns it.
inline at::Tensor unpack_output(const at::Tensor& output, const at::Tensor& input, const at::Tensor& offset) {
  return output.to(input.scalar_type())
      .reshape({input.size(0), offset.size(2), offset.size(3), output.size(1)})
      .permute({0, 3, 1, 2})
      .contiguous(memory_format_of(input));
}

// The gradients as the kernels write them, in any floating type.
struct Grads {
  at::Tensor input;     // [N, H, W, C]
  at::Tensor matrices;  // [G, O / G, K * C / G]
  at::Tensor samples;   // [P, D * K, 3] y, x, mask
};

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> unpack_grads(
    const Grads& grads, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
    const std::optional<at::Tensor>& mask) {
  const auto as_map = [&](const at::Tensor& values, const at::Tensor& like) {
    return values.reshape({like.size(0), like.size(2), like.size(3), like.size(1)})
        .permute({0, 3, 1, 2})
        .to(like.scalar_type())
        .contiguous(memory_format_of(like));
  };
  const at::Tensor offset_grad = as_map(grads.samples.narrow(2, 0, 2), offset);
  return {as_map(grads.input, input), as_map(grads.matrices, weight), offset_grad,
          mask ? as_map(grads.samples.select(2, 2), *mask) : at::empty({0}, offset.options())};
}

}  // namespace mrcnn::deform_conv
