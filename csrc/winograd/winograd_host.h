// Memory of the host side of mrcnn::winograd_conv on CPUs.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>

#include "winograd_cpu.h"

namespace mrcnn::winograd {

constexpr int64_t kLine = 16;    // floats of a cache line
constexpr int64_t kPage = 1024;  // floats of a page

struct Nothing {};
inline Nothing no_state() { return {}; }

inline int64_t parts_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

inline at::Tensor channels_inside(const at::Tensor& map) { return map.contiguous(at::MemoryFormat::ChannelsLast); }

inline std::optional<at::Tensor> dense(const std::optional<at::Tensor>& values) {
  return values ? std::optional(values->contiguous()) : std::nullopt;
}

inline const float* data_or_null(const std::optional<at::Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

// Maps with channels last, to be read; `gates` of the same shape or null.
struct Maps {
  const float* data;
  const float* gates;
  int64_t channels;
};

// Floats between two points of `size` floats each: not a power of two, or all would compete for the same lines of the
// caches.
inline int64_t padded(int64_t size) { return parts_of(size, kPage) * kPage + kLine; }

// Room for the points of some tiles: rows of channels, one after the other in each point, and apart like the points.
class Points {
 public:
  Points(int64_t tiles, int64_t channels)
      : row_(channels + kLine),
        stride_(padded(tiles * row_)),
        memory_(at::empty({kPoints * stride_}, at::kFloat)),
        data_(memory_.mutable_data_ptr<float>()) {}

  int64_t row() const { return row_; }
  int64_t stride() const { return stride_; }
  float* of_tile(int64_t tile) const { return data_ + tile * row_; }
  float* of_point(int64_t point) const { return data_ + point * stride_; }

 private:
  int64_t row_, stride_;
  at::Tensor memory_;
  float* data_;
};

}  // namespace mrcnn::winograd
