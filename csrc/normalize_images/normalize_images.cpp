// Host side of mrcnn::normalize_images on CPUs: checks, memory, threads. The schema stands in
// maskrcnn_benchmark/ops/normalize_images.py.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "../common/checks.h"
#include "normalize_images_cpu.h"

namespace mrcnn::normalize_images {

namespace {

constexpr const char* kOp = "normalize_images";
constexpr int64_t kGrain = 64;  // lines of a thread

void check_statistic(const at::Tensor& values, const char* name) {
  TORCH_CHECK_VALUE(values.dim() == 1 && values.size(0) == kChannels, kOp, ": ", name, " must have the shape [3], got ",
                    values.sizes());
  TORCH_CHECK_TYPE(values.scalar_type() == at::kFloat, kOp, ": ", name, " must be float32, got ",
                   values.scalar_type());
}

void check(const at::Tensor& pixels, const at::Tensor& sizes, const at::Tensor& mean,
           const std::optional<at::Tensor>& std) {
  TORCH_CHECK_VALUE(pixels.dim() == 4 && pixels.size(1) == kChannels, kOp,
                    ": pixels must have the shape [N, 3, H, W], got ", pixels.sizes());
  TORCH_CHECK_TYPE(pixels.scalar_type() == at::kByte, kOp, ": pixels must be uint8, got ", pixels.scalar_type());
  TORCH_CHECK_VALUE(sizes.dim() == 2 && sizes.size(0) == pixels.size(0) && sizes.size(1) == 2, kOp,
                    ": sizes must have the shape [", pixels.size(0), ", 2], got ", sizes.sizes());
  TORCH_CHECK_TYPE(sizes.scalar_type() == at::kLong, kOp, ": sizes must be int64, got ", sizes.scalar_type());
  check_statistic(mean, "mean");
  if (std) check_statistic(*std, "std");
  check_same_device(kOp, {{"pixels", pixels}, {"sizes", sizes}, {"mean", mean}, {"std", std ? *std : mean}});
}

bool is_interleaved(const at::Tensor& images) { return images.stride(1) == 1 && images.stride(3) == kChannels; }

Statistics make_statistics(const at::Tensor& mean, const std::optional<at::Tensor>& std) {
  Statistics statistics{{}, {}, std.has_value()};
  const at::Tensor dense_mean = mean.contiguous(), dense_std = (std ? *std : mean).contiguous();
  std::copy_n(dense_mean.const_data_ptr<float>(), kChannels, statistics.mean);
  std::copy_n(dense_std.const_data_ptr<float>(), kChannels, statistics.std);
  return statistics;
}

template <typename T>
Line<T> make_line(T* data, const at::Tensor& tensor, int64_t image, int64_t y, bool reverse) {
  Line<T> line{{}, is_interleaved(tensor)};
  for (int64_t c = 0; c < kChannels; ++c) {
    const int64_t channel = reverse ? kChannels - 1 - c : c;
    line.channel[c] = data + image * tensor.stride(0) + channel * tensor.stride(1) + y * tensor.stride(2);
  }
  return line;
}

at::Tensor normalize_images(const at::Tensor& pixels, const at::Tensor& sizes, const at::Tensor& mean,
                            const std::optional<at::Tensor>& std, bool reverse, bool channels_last) {
  check(pixels, sizes, mean, std);
  const bool has_lines = is_interleaved(pixels) || pixels.stride(3) == 1;
  const at::Tensor input = has_lines ? pixels : pixels.contiguous(), dense_sizes = sizes.contiguous();
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor output = at::empty(pixels.sizes(), pixels.options().dtype(at::kFloat), format);
  const Statistics statistics = make_statistics(mean, std);
  const int64_t height = pixels.size(2), width = pixels.size(3);
  const int64_t* extents = dense_sizes.const_data_ptr<int64_t>();
  const auto* bytes = input.const_data_ptr<uint8_t>();
  auto* values = output.mutable_data_ptr<float>();
  at::parallel_for(0, pixels.size(0) * height, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t image = line / height, y = line % height;
      const int64_t inside = y < extents[2 * image] ? std::clamp<int64_t>(extents[2 * image + 1], 0, width) : 0;
      normalize_line(make_line(bytes, input, image, y, reverse), make_line(values, output, image, y, false), inside,
                     width, statistics);
    }
  });
  return output;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) { m.impl("normalize_images", &normalize_images); }

}  // namespace mrcnn::normalize_images
