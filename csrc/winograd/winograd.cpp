// Host side of mrcnn::winograd_conv on CPUs: checks, memory, threads. The schema stands in
// maskrcnn_benchmark/ops/winograd.py.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "../common/parallel.h"
#include "../common/roi_checks.h"
#include "winograd_checks.h"
#include "winograd_host.h"

namespace mrcnn::winograd {

namespace {

// Points of the tiles that are done at a time: twice the filters, which each block reads again, within bounds.
constexpr int64_t kLeastBlockBytes = 2 << 20, kMostBlockBytes = 24 << 20;
constexpr int64_t kFilterBytes = 8 << 20;  // of transformed filters that are used once
constexpr int64_t kTilesPerItem = 4;
constexpr int64_t kFilterChannelsPerItem = 32;
constexpr int64_t kItemsPerThread = 4;  // parts of a matrix product, at least

// Tiles that are done at a time, all blocks of nearly the same size.
int64_t tiles_per_block(int64_t tiles, int64_t inputs, int64_t outputs) {
  constexpr int64_t kPointBytes = kPoints * int64_t(sizeof(float));  // of one channel of a tile, or of one filter
  const int64_t bytes = std::clamp(2 * kPointBytes * inputs * outputs, kLeastBlockBytes, kMostBlockBytes);
  const int64_t most = std::max<int64_t>(bytes / (kPointBytes * (inputs + outputs)), 1);
  return parts_of(tiles, parts_of(tiles, most));
}

template <typename Work>
void for_each_tile(int64_t tiles, const Work& work) {
  for_each_item(parts_of(tiles, kTilesPerItem), no_state, [&](Nothing&, int64_t item) {
    const int64_t end = std::min((item + 1) * kTilesPerItem, tiles);
    for (int64_t tile = item * kTilesPerItem; tile < end; ++tile) work(tile);
  });
}

// Calls work(point, begin, end) for all points and parts of `rows`, on any thread.
template <typename Work>
void for_each_product(int64_t rows, const Work& work) {
  const int64_t wanted = parts_of(kItemsPerThread * at::get_num_threads(), kPoints);
  const int64_t size = parts_of(rows, std::min(wanted, parts_of(rows, kLine)));
  const int64_t parts = parts_of(rows, size);
  for_each_item(kPoints * parts, no_state, [&](Nothing&, int64_t item) {
    const int64_t begin = item % parts * size;
    work(item / parts, begin, std::min(begin + size, rows));
  });
}

// The points of `count` tiles of the maps, from `first`. kSize: kWindow or kTile, what `transform` takes.
template <int64_t kSize, typename Transform>
void transform_maps(const Plane& plane, const Maps& maps, const float* zeros, int64_t first, int64_t count,
                    const Points& points, const Transform& transform) {
  constexpr int64_t kMargin = (kSize - kTile) / 2;
  for_each_tile(count, [&](int64_t tile) {
    int64_t offsets[kSize * kSize];
    const float *pixels[kSize * kSize], *gates[kSize * kSize];
    locate(plane, first + tile, kSize, -kMargin, maps.channels, offsets);
    for (int64_t i = 0; i < kSize * kSize; ++i) {
      pixels[i] = offsets[i] < 0 ? zeros : maps.data + offsets[i];
      gates[i] = offsets[i] < 0 || maps.gates == nullptr ? zeros : maps.gates + offsets[i];
    }
    transform(pixels, maps.gates == nullptr ? nullptr : gates, maps.channels, points.of_tile(tile), points.stride());
  });
}

void write_maps(const Plane& plane, const Points& points, int64_t first, int64_t count, const float* bias, bool relu,
                int64_t channels, int64_t pixel_stride, float* data) {
  for_each_tile(count, [&](int64_t tile) {
    int64_t offsets[kTile * kTile];
    float* pixels[kTile * kTile];
    locate(plane, first + tile, kTile, 0, pixel_stride, offsets);
    for (int64_t i = 0; i < kTile * kTile; ++i) pixels[i] = offsets[i] < 0 ? nullptr : data + offsets[i];
    kernels()->transform_outputs(points.of_tile(tile), points.stride(), bias, relu, channels, pixels);
  });
}

// Filters for the convolution itself, and those of its input's gradient: turned by half a turn, channels exchanged.
Filters make_filters(const at::Tensor& weight, const std::optional<at::Tensor>& scale, bool for_grad) {
  Filters filters{weight.const_data_ptr<float>(), weight.stride(0), weight.stride(1), {}, data_or_null(scale), nullptr};
  for (int64_t tap = 0; tap < kTaps; ++tap) {
    const int64_t from = for_grad ? kTaps - 1 - tap : tap;
    filters.tap_offset[tap] = from / 3 * weight.stride(2) + from % 3 * weight.stride(3);
  }
  if (for_grad) {
    std::swap(filters.output_stride, filters.input_stride);
    std::swap(filters.output_scale, filters.input_scale);
  }
  return filters;
}

// The points of filters, padded [C, O] each, from output channel `first` on.
void transform_filters(const Filters& filters, int64_t first, int64_t inputs, int64_t outputs, float* points) {
  Filters part = filters;
  part.data += first * filters.output_stride;
  if (filters.output_scale != nullptr) part.output_scale += first;
  const int64_t parts = parts_of(inputs, kFilterChannelsPerItem);
  for_each_item(outputs / kChannelBlock * parts, no_state, [&](Nothing&, int64_t item) {
    const int64_t begin = item % parts * kFilterChannelsPerItem;
    kernels()->transform_filters(part, item / parts * kChannelBlock, begin,
                                 std::min(begin + kFilterChannelsPerItem, inputs), inputs, outputs, points,
                                 padded(inputs * outputs));
  });
}

// What a convolution computes beside its maps.
struct Convolution {
  Filters filters;
  int64_t outputs;
  const float* bias;
  bool relu;
};

// Output channels whose filters are transformed at a time: all of them, unless one block holds all tiles and so reads
// them once. A part of them is still in the caches when it is needed.
int64_t outputs_per_block(bool one_block, int64_t inputs, int64_t outputs) {
  const int64_t fit = kFilterBytes / (kPoints * inputs * int64_t(sizeof(float))) / kLine / 4 * kLine * 4;
  return one_block ? std::min(std::max(fit, kLine * 4), outputs) : outputs;
}

// The convolution of maps with channels last; a pixel of them counts where its gate is positive.
at::Tensor convolve(const at::Tensor& input, const std::optional<at::Tensor>& gates, const Convolution& conv) {
  const int64_t inputs = input.size(1), outputs = conv.outputs;
  const at::Tensor output = at::empty({input.size(0), outputs, input.size(2), input.size(3)}, input.options(),
                                      at::MemoryFormat::ChannelsLast);
  if (output.numel() == 0) return output;
  const Plane plane = make_plane(input.size(0), input.size(2), input.size(3));
  const int64_t tiles = tiles_per_block(plane.tiles(), inputs, outputs);
  const int64_t part = outputs_per_block(tiles == plane.tiles(), inputs, outputs);
  const Points windows(tiles, inputs), products(tiles, part);
  const at::Tensor zeros = at::zeros({inputs}, at::kFloat);
  const at::Tensor memory = at::empty({kPoints * padded(inputs * part)}, at::kFloat);
  const Maps maps{input.const_data_ptr<float>(), data_or_null(gates), inputs};
  auto* points = memory.mutable_data_ptr<float>();
  for (int64_t channel = 0; channel < outputs; channel += part) {
    const int64_t channels = std::min(part, outputs - channel);
    transform_filters(conv.filters, channel, inputs, channels, points);
    for (int64_t first = 0; first < plane.tiles(); first += tiles) {
      const int64_t count = std::min(tiles, plane.tiles() - first);
      if (channel == 0) {
        transform_maps<kWindow>(plane, maps, zeros.const_data_ptr<float>(), first, count, windows,
                                kernels()->transform_window);
      }
      for_each_product(count, [&](int64_t point, int64_t begin, int64_t end) {
        kernels()->multiply(windows.of_point(point) + begin * windows.row(), windows.row(),
                            points + point * padded(inputs * channels), end - begin, inputs, channels,
                            products.of_point(point) + begin * products.row(), products.row());
      });
      write_maps(plane, products, first, count, conv.bias ? conv.bias + channel : nullptr, conv.relu, channels, outputs,
                 output.mutable_data_ptr<float>() + channel);
    }
  }
  return output;
}

// Adds the tiles' sums of the gradients to grad [O], tile after tile.
void add_bias_grads(const Points& grads, int64_t count, int64_t channels, float* grad) {
  for (int64_t tile = 0; tile < count; ++tile) {
    const float* sums = grads.of_point(kSumPoint) + tile * grads.row();
    for (int64_t c = 0; c < channels; ++c) grad[c] += sums[c];
  }
}

// weight_grad from its points, padded [C, O] each; in the layout of weight_grad.
void write_weight_grad(const float* sums, const float* scale, const at::Tensor& weight_grad) {
  const int64_t outputs = weight_grad.size(0), inputs = weight_grad.size(1);
  float* data = weight_grad.mutable_data_ptr<float>();
  const auto strides = weight_grad.strides();
  for_each_item(inputs, no_state, [&](Nothing&, int64_t c) {
    float grads[kTaps * kChannelBlock];
    for (int64_t first = 0; first < outputs; first += kChannelBlock) {
      kernels()->transform_sums(sums + c * outputs + first, padded(inputs * outputs), grads);
      for (int64_t o = 0; o < kChannelBlock; ++o) {
        float* place = data + (first + o) * strides[0] + c * strides[1];
        const float factor = scale == nullptr ? 1.0f : scale[first + o];
        for (int64_t tap = 0; tap < kTaps; ++tap) {
          place[tap / 3 * strides[2] + tap % 3 * strides[3]] = grads[tap * kChannelBlock + o] * factor;
        }
      }
    }
  });
}

// Gradients of weight and bias: each point sums over the tiles, which one thread adds in their order.
void correlate(const at::Tensor& input, const Maps& grad_maps, const float* scale, const at::Tensor& weight_grad,
               const at::Tensor& bias_grad) {
  if (input.numel() == 0) weight_grad.zero_();
  if (input.numel() == 0) return;
  const int64_t inputs = input.size(1), outputs = grad_maps.channels;
  const Plane plane = make_plane(input.size(0), input.size(2), input.size(3));
  const int64_t tiles = tiles_per_block(plane.tiles(), inputs, outputs);
  const int64_t part = outputs_per_block(tiles == plane.tiles(), inputs, outputs);
  const Points windows(tiles, inputs), grads(tiles, outputs);
  const at::Tensor zeros = at::zeros({std::max(inputs, outputs)}, at::kFloat);
  const at::Tensor sums = at::empty({kPoints * padded(inputs * part)}, at::kFloat);
  const Maps maps{input.const_data_ptr<float>(), nullptr, inputs};
  float* data = sums.mutable_data_ptr<float>();
  for (int64_t first = 0; first < plane.tiles(); first += tiles) {
    const int64_t count = std::min(tiles, plane.tiles() - first);
    transform_maps<kWindow>(plane, maps, zeros.const_data_ptr<float>(), first, count, windows,
                            kernels()->transform_window);
    transform_maps<kTile>(plane, grad_maps, zeros.const_data_ptr<float>(), first, count, grads,
                          kernels()->transform_grads);
    if (bias_grad.numel() > 0) add_bias_grads(grads, count, outputs, bias_grad.mutable_data_ptr<float>());
    const bool last = first + count == plane.tiles();
    for (int64_t channel = 0; channel < outputs; channel += part) {
      const int64_t channels = std::min(part, outputs - channel);
      for_each_product(inputs, [&](int64_t point, int64_t begin, int64_t end) {
        kernels()->multiply_transposed(windows.of_point(point), windows.row(), grads.of_point(point) + channel,
                                       grads.row(), count, begin, end, channels,
                                       data + point * padded(inputs * channels), first > 0);
      });
      if (last) {
        write_weight_grad(data, scale == nullptr ? nullptr : scale + channel, weight_grad.narrow(0, channel, channels));
      }
    }
  }
}

at::Tensor winograd_conv(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& scale,
                         const std::optional<at::Tensor>& bias, bool relu) {
  check(input, weight, scale, bias);
  const auto factors = dense(scale), shifts = dense(bias);
  const Convolution conv{make_filters(weight, factors, false), weight.size(0), data_or_null(shifts), relu};
  return convolve(channels_inside(input), std::nullopt, conv).contiguous(memory_format_of(input));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> winograd_conv_backward(
    const at::Tensor& grad, const std::optional<at::Tensor>& output, const at::Tensor& input, const at::Tensor& weight,
    const std::optional<at::Tensor>& scale, std::array<bool, 3> wanted) {
  check(input, weight, scale, std::nullopt);
  check_grad(grad, output, input, weight);
  const at::Tensor grad_maps = channels_inside(grad), nothing = at::empty({0}, grad.options());
  const auto gates = output ? std::optional(channels_inside(*output)) : std::nullopt, factors = dense(scale);
  at::Tensor input_grad = nothing, weight_grad = nothing, bias_grad = nothing;
  if (wanted[0]) {
    const Convolution conv{make_filters(weight, factors, true), weight.size(1), nullptr, false};
    input_grad = convolve(grad_maps, gates, conv).contiguous(memory_format_of(input));
  }
  if (wanted[2]) bias_grad = at::zeros({weight.size(0)}, grad.options());
  if (wanted[1] || wanted[2]) {
    at::Tensor sums = at::empty(weight.sizes(), weight.options(), memory_format_of(weight));
    correlate(channels_inside(input), {grad_maps.const_data_ptr<float>(), data_or_null(gates), grad.size(1)},
              data_or_null(factors), sums, bias_grad);
    if (wanted[1]) weight_grad = sums;
  }
  return {input_grad, weight_grad, bias_grad};
}

}  // namespace

// On other processors the plain kernels stay, which a caller can see.
TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  if (kernels() == nullptr) return;
  m.impl("winograd_conv", winograd_conv);
  m.impl("winograd_conv_backward", winograd_conv_backward);
}

}  // namespace mrcnn::winograd
