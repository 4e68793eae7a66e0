#include "roi_pool_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../common/simd.h"

namespace mrcnn::roi_pool {

namespace {

constexpr int64_t kTile = 64;  // channels whose running maxima are kept at once

// Pixels [begin, end) along one axis.
struct Range {
  int64_t begin, end;
};

// A roi on its map: corners rounded to whole pixels, both inclusive, as the published ROIPool has it.
template <typename A>
struct Geometry {
  bool reads;  // false: an empty slot, or a coordinate that is not finite
  int64_t image;
  A x1, y1, bin_width, bin_height;
};

template <typename A>
MRCNN_INLINE Geometry<A> locate(const Problem<A>& problem, int64_t roi) {
  const A* values = problem.rois + roi * 5;
  const bool reads = values[0] >= 0 && std::all_of(values, values + 5, [](A value) { return std::isfinite(value); });
  if (!reads) return {false, 0, A(0), A(0), A(0), A(0)};
  const A scale = static_cast<A>(problem.scale);
  const A x1 = std::round(values[1] * scale), y1 = std::round(values[2] * scale);
  const A x2 = std::round(values[3] * scale), y2 = std::round(values[4] * scale);
  return {true,
          static_cast<int64_t>(values[0]),
          x1,
          y1,
          std::max(x2 - x1 + 1, A(1)) / static_cast<A>(problem.pooled_width),
          std::max(y2 - y1 + 1, A(1)) / static_cast<A>(problem.pooled_height)};
}

template <typename A>
MRCNN_INLINE Range bin_range(A start, A bin_size, int64_t bin, int64_t extent) {
  // Clamped before the conversion, which is undefined for values out of range; NaN, from a roi whose size overflows, is 0.
  const auto clamp = [extent](A edge) {
    return static_cast<int64_t>(edge > A(0) ? std::min(edge, static_cast<A>(extent)) : A(0));
  };
  return {clamp(std::floor(static_cast<A>(bin) * bin_size) + start),
          clamp(std::ceil(static_cast<A>(bin + 1) * bin_size) + start)};
}

// The maxima of one bin for up to kTile channels.
template <typename T, typename A>
MRCNN_INLINE void pool_bin(const T* plane, int64_t pixel_stride, int64_t width, Range ys, Range xs, int64_t channels,
                           A* MRCNN_RESTRICT best, int32_t* MRCNN_RESTRICT place) {
  const bool empty = ys.end <= ys.begin || xs.end <= xs.begin;
  for (int64_t c = 0; c < channels; ++c) {
    best[c] = empty ? A(0) : -std::numeric_limits<A>::infinity();
    place[c] = empty ? -1 : static_cast<int32_t>(ys.begin * width + xs.begin);
  }
  for (int64_t y = ys.begin; y < ys.end; ++y) {
    for (int64_t x = xs.begin; x < xs.end; ++x) {
      const int32_t pixel = static_cast<int32_t>(y * width + x);
      const T* MRCNN_RESTRICT values = plane + pixel * pixel_stride;
      for (int64_t c = 0; c < channels; ++c) {
        const A value = load(values[c]);
        // The first of equal values wins; NaN wins and stays, as in torch's own max pooling.
        const bool wins = (value > best[c]) | ((value != value) & (best[c] == best[c]));
        best[c] = wins ? value : best[c];
        place[c] = wins ? pixel : place[c];
      }
    }
  }
}

template <typename T, typename A>
MRCNN_INLINE void forward_any(const Problem<A>& problem, const T* features, T* output, int32_t* argmax,
                              bool channels_last, int64_t begin, int64_t end) {
  const int64_t bins = problem.bins(), channels = problem.channels;
  const int64_t channel_stride = channels_last ? 1 : bins, bin_stride = channels_last ? channels : 1;
  A best[kTile];
  int32_t place[kTile];
  for (int64_t roi = begin; roi < end; ++roi) {
    const Geometry<A> at = locate(problem, roi);
    const T* image = features + at.image * problem.height * problem.width * channels;
    for (int64_t bin = 0; bin < bins; ++bin) {
      Range ys{0, 0}, xs{0, 0};
      if (at.reads) {
        ys = bin_range(at.y1, at.bin_height, bin / problem.pooled_width, problem.height);
        xs = bin_range(at.x1, at.bin_width, bin % problem.pooled_width, problem.width);
      }
      for (int64_t first = 0; first < channels; first += kTile) {
        const int64_t count = std::min(kTile, channels - first);
        pool_bin(image + first, channels, problem.width, ys, xs, count, best, place);
        const int64_t offset = roi * channels * bins + first * channel_stride + bin * bin_stride;
        for (int64_t c = 0; c < count; ++c) {
          store(best[c], output + offset + c * channel_stride);
          argmax[offset + c * channel_stride] = place[c];
        }
      }
    }
  }
}

// One channel of one image is a plane that fits the first-level cache, so channels are the outer loop.
template <typename T, typename A>
void backward_any(const Problem<A>& problem, const T* grad, const int32_t* argmax, A* sums, int64_t begin, int64_t end) {
  const int64_t bins = problem.bins(), pixels = problem.height * problem.width;
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t roi = 0; roi < problem.num_rois; ++roi) {
      const Geometry<A> at = locate(problem, roi);
      if (!at.reads) continue;
      A* plane = sums + (at.image * problem.channels + c) * pixels;
      const int64_t offset = (roi * problem.channels + c) * bins;
      for (int64_t bin = 0; bin < bins; ++bin) {
        const int32_t pixel = argmax[offset + bin];
        if (pixel >= 0 && pixel < pixels) plane[pixel] += load(grad[offset + bin]);
      }
    }
  }
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                                              \
  MRCNN_MULTIVERSION void forward(const Problem<Accumulate<T>::type>& problem, const T* features, T* output,         \
                                  int32_t* argmax, bool channels_last, int64_t begin, int64_t end) {                 \
    forward_any(problem, features, output, argmax, channels_last, begin, end);                                       \
  }                                                                                                                  \
  void backward(const Problem<Accumulate<T>::type>& problem, const T* grad, const int32_t* argmax,                   \
                Accumulate<T>::type* sums, int64_t begin, int64_t end) {                                             \
    backward_any(problem, grad, argmax, sums, begin, end);                                                           \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_pool
