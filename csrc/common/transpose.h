// Transposes matrices with rows far apart, sixteen rows at a time: a cache line of each column is then written at once.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "half.h"

#if defined(__clang__)
#define MRCNN_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#elif defined(__GNUC__)
#define MRCNN_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, ::mrcnn::FourIndices{i, j, k, l})
#endif

namespace mrcnn {

constexpr int64_t kStrip = 16;  // rows that are read side by side

#ifdef MRCNN_SHUFFLE
using Four = float __attribute__((vector_size(16)));
using FourIndices = int32_t __attribute__((vector_size(16)));

// out[c][r] = in[r][c] for four rows and columns.
MRCNN_INLINE void transpose_four(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  Four rows[4];
  for (int64_t r = 0; r < 4; ++r) std::memcpy(&rows[r], in + r * in_stride, sizeof(Four));
  const Four low01 = MRCNN_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5), high01 = MRCNN_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const Four low23 = MRCNN_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5), high23 = MRCNN_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  const Four columns[4] = {MRCNN_SHUFFLE(low01, low23, 0, 1, 4, 5), MRCNN_SHUFFLE(low01, low23, 2, 3, 6, 7),
                           MRCNN_SHUFFLE(high01, high23, 0, 1, 4, 5), MRCNN_SHUFFLE(high01, high23, 2, 3, 6, 7)};
  for (int64_t c = 0; c < 4; ++c) std::memcpy(out + c * out_stride, &columns[c], sizeof(Four));
}
#else
MRCNN_INLINE void transpose_four(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  for (int64_t c = 0; c < 4; ++c)
    for (int64_t r = 0; r < 4; ++r) out[c * out_stride + r] = in[r * in_stride + c];
}
#endif

template <typename From, typename To>
MRCNN_INLINE void transpose_each(const From* in, int64_t in_stride, int64_t rows, int64_t columns, To* out,
                                 int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) store(load(in[r * in_stride + c]), out + c * out_stride + r);
}

// out[c * out_stride + r] = in[r * in_stride + c]; 16-bit values are read as float and rounded where they are written.
template <typename From, typename To>
MRCNN_INLINE void transpose(const From* in, int64_t in_stride, int64_t rows, int64_t columns, To* out,
                            int64_t out_stride) {
  if constexpr (std::is_same_v<From, float> && std::is_same_v<To, float>) {
    const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (int64_t first = 0; first < whole_rows; first += kStrip) {
      const int64_t last = first + kStrip < whole_rows ? first + kStrip : whole_rows;
      for (int64_t c = 0; c < whole_columns; c += 4)
        for (int64_t r = first; r < last; r += 4)
          transpose_four(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    }
    transpose_each(in + whole_columns, in_stride, whole_rows, columns - whole_columns,
                   out + whole_columns * out_stride, out_stride);
    transpose_each(in + whole_rows * in_stride, in_stride, rows - whole_rows, columns, out + whole_rows, out_stride);
  } else {
    // Through small squares, so that the conversions are loops over neighbours.
    constexpr bool kDouble = std::is_same_v<From, double> || std::is_same_v<To, double>;
    using A = std::conditional_t<kDouble, double, float>;
    A square[kStrip * kStrip] = {}, turned[kStrip * kStrip];
    for (int64_t r = 0; r < rows; r += kStrip) {
      const int64_t height = rows - r < kStrip ? rows - r : kStrip;
      for (int64_t c = 0; c < columns; c += kStrip) {
        const int64_t width = columns - c < kStrip ? columns - c : kStrip;
        for (int64_t y = 0; y < height; ++y)
          for (int64_t x = 0; x < width; ++x) square[y * kStrip + x] = load(in[(r + y) * in_stride + c + x]);
        if constexpr (std::is_same_v<A, float>) {
          transpose<float, float>(square, kStrip, kStrip, kStrip, turned, kStrip);
        } else {
          transpose_each(square, kStrip, kStrip, kStrip, turned, kStrip);
        }
        for (int64_t x = 0; x < width; ++x)
          for (int64_t y = 0; y < height; ++y) store(turned[x * kStrip + y], out + (c + x) * out_stride + r + y);
      }
    }
  }
}

}  // namespace mrcnn
