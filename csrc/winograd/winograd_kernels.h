// The kernels for vectors of one instruction set, which the including file has switched on. It defines in this unnamed
// namespace a type Vector:
//
//   kLanes                        floats of a vector
//   kRows                         rows of the block that a matrix product keeps in registers, beside two vectors a row
//   Register                      the vector itself
//   load, store, broadcast, zero, add, subtract, multiply
//   maximum(a, b)                 b where one of them is not a number
//   multiply_add(a, b, c)         a * b + c, rounded once
//   where_positive(gate, value)   value where the gate is positive or not a number, otherwise 0
#pragma once

#include "../common/simd.h"
#include "winograd_cpu.h"
#include "winograd_products.h"

namespace mrcnn::winograd {

namespace {


// a + factor * b
MRCNN_INLINE Register plus(Register a, float factor, Register b) {
  return Vector::multiply_add(Vector::broadcast(factor), b, a);
}

MRCNN_INLINE Register scaled(float factor, Register a) { return Vector::multiply(Vector::broadcast(factor), a); }

// --- Transforms of one dimension. Points 0, 1, -1, 2, -2, 1/2, -1/2, infinity; a pair +-p shares even and odd parts.

// From 8 pixels `in` to the 8 points `out`.
MRCNN_INLINE void window_points(const Register* in, Register* out) {
  out[0] = Vector::subtract(plus(in[6], -5.25f, in[4]), plus(in[0], -5.25f, in[2]));
  out[7] = Vector::subtract(plus(in[7], -5.25f, in[5]), plus(in[1], -5.25f, in[3]));
  const Register even1 = Vector::add(plus(in[6], -4.25f, in[4]), in[2]);
  const Register odd1 = Vector::add(plus(in[5], -4.25f, in[3]), in[1]);
  out[1] = Vector::add(even1, odd1);
  out[2] = Vector::subtract(even1, odd1);
  const Register even2 = plus(plus(in[6], -1.25f, in[4]), 0.25f, in[2]);
  const Register odd2 = plus(plus(in[5], -1.25f, in[3]), 0.25f, in[1]);
  out[3] = plus(even2, 2.0f, odd2);
  out[4] = plus(even2, -2.0f, odd2);
  const Register even3 = plus(plus(in[6], -5.0f, in[4]), 4.0f, in[2]);
  const Register odd3 = plus(plus(in[5], -5.0f, in[3]), 4.0f, in[1]);
  out[5] = plus(even3, 0.5f, odd3);
  out[6] = plus(even3, -0.5f, odd3);
}

// From 6 output pixels' gradients to the 8 points: the transpose of `outputs`.
MRCNN_INLINE void grad_points(const Register* in, Register* out) {
  out[0] = in[0];
  out[7] = in[5];
  const Register even1 = Vector::add(Vector::add(in[0], in[2]), in[4]);
  const Register odd1 = Vector::add(Vector::add(in[1], in[3]), in[5]);
  out[1] = Vector::add(even1, odd1);
  out[2] = Vector::subtract(even1, odd1);
  const Register even2 = plus(plus(in[0], 4.0f, in[2]), 16.0f, in[4]);
  const Register odd2 = plus(plus(in[1], 4.0f, in[3]), 16.0f, in[5]);
  out[3] = plus(even2, 2.0f, odd2);
  out[4] = plus(even2, -2.0f, odd2);
  const Register even3 = plus(plus(in[0], 0.25f, in[2]), 0.0625f, in[4]);
  const Register odd3 = plus(plus(in[1], 0.25f, in[3]), 0.0625f, in[5]);
  out[5] = plus(even3, 0.5f, odd3);
  out[6] = plus(even3, -0.5f, odd3);
}

// From 8 points to 6 output pixels.
MRCNN_INLINE void outputs(const Register* in, Register* out) {
  const Register sum1 = Vector::add(in[1], in[2]), difference1 = Vector::subtract(in[1], in[2]);
  const Register sum2 = Vector::add(in[3], in[4]), difference2 = Vector::subtract(in[3], in[4]);
  const Register sum3 = Vector::add(in[5], in[6]), difference3 = Vector::subtract(in[5], in[6]);
  out[0] = Vector::add(Vector::add(in[0], sum1), Vector::add(sum2, sum3));
  out[1] = plus(plus(difference1, 2.0f, difference2), 0.5f, difference3);
  out[2] = plus(plus(sum1, 4.0f, sum2), 0.25f, sum3);
  out[3] = plus(plus(difference1, 8.0f, difference2), 0.125f, difference3);
  out[4] = plus(plus(sum1, 16.0f, sum2), 0.0625f, sum3);
  out[5] = Vector::add(plus(plus(difference1, 32.0f, difference2), 0.03125f, difference3), in[7]);
}

// From the 3 taps of a filter to the 8 points.
MRCNN_INLINE void filter_points(const Register* in, Register* out) {
  out[0] = Vector::subtract(Vector::zero(), in[0]);
  out[7] = in[2];
  const Register even1 = scaled(-2.0f / 9, Vector::add(in[0], in[2])), odd1 = scaled(-2.0f / 9, in[1]);
  out[1] = Vector::add(even1, odd1);
  out[2] = Vector::subtract(even1, odd1);
  const Register even2 = scaled(1.0f / 90, plus(in[0], 4.0f, in[2])), odd2 = scaled(2.0f / 90, in[1]);
  out[3] = Vector::add(even2, odd2);
  out[4] = Vector::subtract(even2, odd2);
  const Register even3 = scaled(32.0f / 45, plus(in[0], 0.25f, in[2])), odd3 = scaled(16.0f / 45, in[1]);
  out[5] = Vector::add(even3, odd3);
  out[6] = Vector::subtract(even3, odd3);
}

// From 8 points to the gradients of the 3 taps: the transpose of `filter_points`.
MRCNN_INLINE void tap_grads(const Register* in, Register* out) {
  const Register sum1 = scaled(-2.0f / 9, Vector::add(in[1], in[2]));
  const Register sum2 = scaled(1.0f / 90, Vector::add(in[3], in[4]));
  const Register sum3 = scaled(32.0f / 45, Vector::add(in[5], in[6]));
  const Register difference1 = scaled(-2.0f / 9, Vector::subtract(in[1], in[2]));
  const Register difference2 = scaled(2.0f / 90, Vector::subtract(in[3], in[4]));
  const Register difference3 = scaled(16.0f / 45, Vector::subtract(in[5], in[6]));
  out[0] = Vector::subtract(Vector::add(Vector::add(sum1, sum2), sum3), in[0]);
  out[1] = Vector::add(Vector::add(difference1, difference2), difference3);
  out[2] = Vector::add(plus(plus(sum1, 4.0f, sum2), 0.25f, sum3), in[7]);
}

// --- Transforms of a tile: the columns, then the rows.

template <int64_t kFrom, int64_t kTo, typename Load, typename Store, typename Transform>
MRCNN_INLINE void transform_square(const Transform& transform, const Load& load, const Store& store) {
  Register between[kTo * kFrom], in[kFrom], out[kTo];
  for (int64_t x = 0; x < kFrom; ++x) {
    for (int64_t y = 0; y < kFrom; ++y) in[y] = load(y * kFrom + x);
    transform(in, out);
    for (int64_t y = 0; y < kTo; ++y) between[y * kFrom + x] = out[y];
  }
  for (int64_t y = 0; y < kTo; ++y) {
    transform(between + y * kFrom, out);
    for (int64_t x = 0; x < kTo; ++x) store(y * kTo + x, out[x]);
  }
}

template <int64_t kFrom, typename Transform>
MRCNN_INLINE void transform_pixels(const Transform& transform, const float* const* pixels, const float* const* gates,
                                   int64_t channels, float* points, int64_t stride) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const auto store = [&](int64_t point, Register value) { Vector::store(points + point * stride + c, value); };
    if (gates == nullptr) {
      const auto load = [&](int64_t pixel) { return Vector::load(pixels[pixel] + c); };
      transform_square<kFrom, kWindow>(transform, load, store);
    } else {
      const auto load = [&](int64_t pixel) {
        return Vector::where_positive(Vector::load(gates[pixel] + c), Vector::load(pixels[pixel] + c));
      };
      transform_square<kFrom, kWindow>(transform, load, store);
    }
  }
}

void transform_window(const float* const* pixels, const float* const* gates, int64_t channels, float* points,
                      int64_t stride) {
  transform_pixels<kWindow>([](const Register* in, Register* out) { window_points(in, out); }, pixels, gates, channels,
                            points, stride);
}

void transform_grads(const float* const* pixels, const float* const* gates, int64_t channels, float* points,
                     int64_t stride) {
  transform_pixels<kTile>([](const Register* in, Register* out) { grad_points(in, out); }, pixels, gates, channels,
                          points, stride);
}

void transform_outputs(const float* points, int64_t stride, const float* bias, bool relu, int64_t channels,
                       float* const* pixels) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Register shift = bias == nullptr ? Vector::zero() : Vector::load(bias + c);
    const auto load = [&](int64_t point) { return Vector::load(points + point * stride + c); };
    const auto store = [&](int64_t pixel, Register value) {
      if (pixels[pixel] == nullptr) return;
      value = Vector::add(value, shift);
      Vector::store(pixels[pixel] + c, relu ? Vector::maximum(Vector::zero(), value) : value);
    };
    transform_square<kWindow, kTile>([](const Register* in, Register* out) { outputs(in, out); }, load, store);
  }
}

// --- Filters.

void transform_filters(const Filters& filters, int64_t first_output, int64_t begin, int64_t end, int64_t inputs,
                       int64_t outputs, float* points, int64_t stride) {
  float taps[kTaps][kChannelBlock];
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t o = 0; o < kChannelBlock; ++o) {
      const int64_t output = first_output + o;
      const float* filter = filters.data + output * filters.output_stride + c * filters.input_stride;
      float scale = filters.output_scale == nullptr ? 1.0f : filters.output_scale[output];
      if (filters.input_scale != nullptr) scale *= filters.input_scale[c];
      for (int64_t tap = 0; tap < kTaps; ++tap) taps[tap][o] = filter[filters.tap_offset[tap]] * scale;
    }
    for (int64_t o = 0; o < kChannelBlock; o += kLanes) {
      const int64_t output = first_output + o, panel = output / kPanel * kPanel;
      const int64_t width = outputs - panel < kPanel ? outputs - panel : kPanel;
      float* place = points + panel * inputs + c * width + output - panel;
      Register between[kWindow * 3], in[3], out[kWindow];
      for (int64_t x = 0; x < 3; ++x) {
        for (int64_t y = 0; y < 3; ++y) in[y] = Vector::load(taps[y * 3 + x] + o);
        filter_points(in, out);
        for (int64_t y = 0; y < kWindow; ++y) between[y * 3 + x] = out[y];
      }
      for (int64_t y = 0; y < kWindow; ++y) {
        filter_points(between + y * 3, out);
        for (int64_t x = 0; x < kWindow; ++x) Vector::store(place + (y * kWindow + x) * stride, out[x]);
      }
    }
  }
}

void transform_sums(const float* sums, int64_t stride, float* grads) {
  for (int64_t o = 0; o < kChannelBlock; o += kLanes) {
    const auto load = [&](int64_t point) { return Vector::load(sums + point * stride + o); };
    const auto store = [&](int64_t tap, Register value) { Vector::store(grads + tap * kChannelBlock + o, value); };
    transform_square<kWindow, 3>([](const Register* in, Register* out) { tap_grads(in, out); }, load, store);
  }
}

constexpr Kernels kKernels{kPanel,           transform_filters, transform_window, transform_grads,
                           transform_outputs, multiply,          multiply_transposed, transform_sums};

}  // namespace

}  // namespace mrcnn::winograd
