// 3x3 convolution with fewer multiplications, for CPUs: Winograd's F(6x6, 3x3) on maps with channels last. Nothing here
// knows torch.
//
// A tile of 6x6 output pixels depends on a window of 8x8 input pixels. Window and filter are transformed to 8x8 points;
// there the convolution is one product a point and pair of channels, 64 instead of 324 a tile, and over all tiles and
// channels 64 matrix products. Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016). The
// points are 0, +-1, +-2, +-1/2 and infinity, of which the error is smallest among those tried.
//
// C input channels, O output channels, T tiles; all matrices by rows.
#pragma once

#include <cstdint>

namespace mrcnn::winograd {

constexpr int64_t kTile = 6, kWindow = 8, kTaps = 9, kPoints = kWindow * kWindow;
constexpr int64_t kSumPoint = kWindow + 1;  // where both coordinates are 1: a transformed gradient is its tile's sum
constexpr int64_t kChannelBlock = 16;       // channels come in multiples of it

// Filters of any layout: element (o, c, tap) lies at data[o * output_stride + c * input_stride + tap_offset[tap]].
struct Filters {
  const float* data;
  int64_t output_stride, input_stride;
  int64_t tap_offset[kTaps];
  const float* output_scale;  // factor of each output channel, or null
  const float* input_scale;   // of each input channel, or null
};

// Kernels of one instruction set.
struct Kernels {
  // Output channels of a panel. Transformed filters are [64, panels, C, panel]; the last panel may be half as wide.
  int64_t panel;

  // Filters of the output channels [first_output, + 16) and input channels [begin, end), transformed, to their place in
  // `points`, of which one starts `stride` floats after the other.
  void (*transform_filters)(const Filters& filters, int64_t first_output, int64_t begin, int64_t end, int64_t inputs,
                            int64_t outputs, float* points, int64_t stride);

  // A window of 8x8 `pixels`, transformed: channel c of point p goes to points[p * stride + c]. With `gates`, a pixel
  // counts where its gate is positive.
  void (*transform_window)(const float* const* pixels, const float* const* gates, int64_t channels, float* points,
                           int64_t stride);

  // A tile of 6x6 output pixels' gradients, transformed; otherwise as transform_window.
  void (*transform_grads)(const float* const* pixels, const float* const* gates, int64_t channels, float* points,
                          int64_t stride);

  // A tile of 6x6 output pixels from its points, plus bias [O] where given; null pixels are left out.
  void (*transform_outputs)(const float* points, int64_t stride, const float* bias, bool relu, int64_t channels,
                            float* const* pixels);

  // output [rows, O] = windows [rows, C] filters [C, O]; the filters are one point of the transformed ones.
  void (*multiply)(const float* windows, int64_t window_stride, const float* filters, int64_t rows, int64_t inputs,
                   int64_t outputs, float* output, int64_t output_stride);

  // output [C (rows begin to end), O] = windows [T, C]^T grads [T, O], added to what is there where `accumulate`.
  void (*multiply_transposed)(const float* windows, int64_t window_stride, const float* grads, int64_t grad_stride,
                              int64_t tiles, int64_t begin, int64_t end, int64_t outputs, float* output,
                              bool accumulate);

  // Gradients of 16 filters, from the 64 points of their sums, `stride` floats apart, to grads [9, 16].
  void (*transform_sums)(const float* sums, int64_t stride, float* grads);
};

// Null where this build or this processor lacks the instructions.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();

// The best ones of this processor, or null; ATEN_CPU_CAPABILITY (avx2, default) holds them back as it does torch's.
const Kernels* kernels();

// How N maps [H, W] lie on one plane, so that few tiles hang over an edge: `across` maps side by side, one row of zeros
// between neighbours, which serves both as padding.
struct Plane {
  int64_t images, height, width;
  int64_t across, tiles_down, tiles_across;

  int64_t tiles() const { return tiles_down * tiles_across; }
};

// The plane with the fewest tiles.
Plane make_plane(int64_t images, int64_t height, int64_t width);

// Where the pixels of a window (kWindow, first = -1) or a tile (kTile, first = 0) lie in maps with channels last: the
// index of their first channel, or -1 outside.
void locate(const Plane& plane, int64_t tile, int64_t size, int64_t first, int64_t channels, int64_t* offsets);

}  // namespace mrcnn::winograd
