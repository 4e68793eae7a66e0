// Where the taps of a deformable convolution read. CPU and CUDA kernels share the arithmetic, which is that of the
// plain kernel, operation by operation. N images, C channels, H W, K taps, D deformable groups, P = N * OH * OW output
// pixels.
#pragma once

#include <cstdint>

#include "../common/simd.h"

namespace mrcnn::deform_conv {

// Feature maps are [N, H, W, C] dense. Channels that taps read are sorted by group, tap, channel of the group.
template <typename A>
struct Problem {
  const A* offset;  // [P, D, K, 2] y, x
  const A* mask;    // [P, D, K], or null for ones
  int64_t num_images, channels, height, width;
  int64_t output_height, output_width, kernel_height, kernel_width;
  int64_t stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
  int64_t groups, deformable_groups;

  MRCNN_INLINE int64_t taps() const { return kernel_height * kernel_width; }
  MRCNN_INLINE int64_t samples() const { return deformable_groups * taps(); }  // of an output pixel
  MRCNN_INLINE int64_t output_pixels() const { return num_images * output_height * output_width; }
  MRCNN_INLINE int64_t group_channels() const { return channels / groups; }
  MRCNN_INLINE int64_t sample_channels() const { return channels / deformable_groups; }
};

// Four pixels around a point, the upper ones first, and the share of the lower and of the right ones.
template <typename A>
struct Sample {
  int32_t places[4];  // pixels counted through all images; -1 outside of the map
  A below, right, mask;

  MRCNN_INLINE bool reads() const {
    return places[0] >= 0 || places[1] >= 0 || places[2] >= 0 || places[3] >= 0;
  }
  MRCNN_INLINE A bilinear(int corner) const {
    return (corner < 2 ? A(1) - below : below) * (corner % 2 == 0 ? A(1) - right : right);
  }
  MRCNN_INLINE A weight(int corner) const { return bilinear(corner) * mask; }
};

// An output pixel: its image, and where the first tap reads without an offset.
struct Origin {
  int64_t image, y, x;
};

template <typename A>
MRCNN_INLINE Origin origin_of(const Problem<A>& problem, int64_t pixel) {
  const int64_t row = pixel / problem.output_width;
  return {row / problem.output_height, row % problem.output_height * problem.stride_y - problem.padding_y,
          pixel % problem.output_width * problem.stride_x - problem.padding_x};
}

template <typename A>
MRCNN_INLINE int64_t round_down(A value) {
  const int64_t whole = static_cast<int64_t>(value);
  return whole - (static_cast<A>(whole) > value ? 1 : 0);
}

// Sample `index` of 0 .. D * K of an output pixel. A point that is off the map by more than a pixel, or is none at all,
// reads nothing.
template <typename A>
MRCNN_INLINE Sample<A> locate(const Problem<A>& problem, const Origin& origin, int64_t pixel, int64_t index) {
  const int64_t tap = index % problem.taps(), place = pixel * problem.samples() + index;
  const int64_t tap_y = tap / problem.kernel_width * problem.dilation_y;
  const int64_t tap_x = tap % problem.kernel_width * problem.dilation_x;
  const A y = static_cast<A>(origin.y + tap_y) + problem.offset[2 * place];
  const A x = static_cast<A>(origin.x + tap_x) + problem.offset[2 * place + 1];
  const A mask = problem.mask == nullptr ? A(1) : problem.mask[place];
  const bool near = y >= A(-1) && y < static_cast<A>(problem.height) && x >= A(-1) && x < static_cast<A>(problem.width);
  if (!near) return {{-1, -1, -1, -1}, A(0), A(0), mask};
  const int64_t top = round_down(y), left = round_down(x);
  Sample<A> sample{{-1, -1, -1, -1}, y - static_cast<A>(top), x - static_cast<A>(left), mask};
  for (int corner = 0; corner < 4; ++corner) {
    const int64_t row = top + corner / 2, column = left + corner % 2;
    if (row < 0 || row >= problem.height || column < 0 || column >= problem.width) continue;
    sample.places[corner] = static_cast<int32_t>((origin.image * problem.height + row) * problem.width + column);
  }
  return sample;
}

// The gradients of a sample's y, x and mask, where products[i] is the sum over the channels of the gradient of what the
// tap read times the value at corner i.
template <typename A>
struct SampleGrad {
  A y, x, mask;
};

template <typename A>
MRCNN_INLINE SampleGrad<A> grad_of(const Sample<A>& sample, const A* products) {
  const A y = (A(1) - sample.right) * (products[2] - products[0]) + sample.right * (products[3] - products[1]);
  const A x = (A(1) - sample.below) * (products[1] - products[0]) + sample.below * (products[3] - products[2]);
  A mask = 0;
  for (int corner = 0; corner < 4; ++corner) mask += products[corner] * sample.bilinear(corner);
  return {y * sample.mask, x * sample.mask, mask};
}

}  // namespace mrcnn::deform_conv
