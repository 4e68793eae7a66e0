// The matrix products of winograd_kernels.h, for the Vector that the including file defines.
#pragma once

#include "../common/simd.h"
#include "winograd_cpu.h"

namespace mrcnn::winograd {

namespace {

using Register = Vector::Register;

constexpr int64_t kLanes = Vector::kLanes;
constexpr int64_t kPanelVectors = 2, kPanel = kPanelVectors * kLanes;
constexpr int64_t kLine = 16;    // floats of a cache line
constexpr int64_t kUnroll = 16;  // steps of a product between two looks ahead
constexpr int64_t kAhead = 8;    // steps by which rows are asked for in advance

// A block of a product: output [rows, vectors * kLanes]. Element (row, k) of the left factor lies at
// left[row * left_stride + k], or transposed at left[k * left_stride + row]; row k of the right one at
// right + k * right_stride.
struct Product {
  const float* left;
  int64_t left_stride;
  const float* right;
  int64_t right_stride;
  int64_t depth;
  float* output;
  int64_t output_stride;
  bool accumulate;
  // What the next products read, asked for in advance, because it comes from a far cache: as many rows of a left
  // factor, or null, and `next_size` floats of a right one.
  const float* next_left;
  const float* next_right;
  int64_t next_size;
};

// Computes a block in registers.
template <int64_t kRows, int64_t kVectors, bool kTransposed>
void multiply_block(const Product& product) {
  const auto [left, left_stride, right, right_stride, depth, output, output_stride, accumulate, next_left, next_right,
              next_size] = product;
  Register sums[kRows][kVectors];
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[row][v] = Vector::zero();
      __builtin_prefetch(output + row * output_stride + v * kLanes, 1);
    }
  }
  const auto step = [&](int64_t k) __attribute__((always_inline)) {
    Register factors[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) factors[v] = Vector::load(right + k * right_stride + v * kLanes);
    if constexpr (kTransposed) {  // rows lie far apart, which the processor does not foresee
      __builtin_prefetch(left + (k + kAhead) * left_stride);
      __builtin_prefetch(left + (k + kAhead) * left_stride + kRows);
      for (int64_t v = 0; v < kVectors; ++v) __builtin_prefetch(right + (k + kAhead) * right_stride + v * kLanes);
    }
    for (int64_t row = 0; row < kRows; ++row) {
      const Register value = Vector::broadcast(kTransposed ? left[k * left_stride + row] : left[row * left_stride + k]);
      for (int64_t v = 0; v < kVectors; ++v) sums[row][v] = Vector::multiply_add(value, factors[v], sums[row][v]);
    }
  };
  int64_t k = 0;
  for (; k + kUnroll <= depth; k += kUnroll) {
    if (!kTransposed && next_left != nullptr) {
      for (int64_t row = 0; row < kRows; ++row) __builtin_prefetch(next_left + row * left_stride + k);
    }
    if constexpr (!kTransposed) {
      const float* end = next_right + next_size * (k + kUnroll) / depth;
      for (const float* line = next_right + next_size * k / depth; line < end; line += kLine) {
        __builtin_prefetch(line, 0, 2);
      }
    }
    for (int64_t i = 0; i < kUnroll; ++i) step(k + i);
  }
  for (; k < depth; ++k) step(k);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      float* place = output + row * output_stride + v * kLanes;
      Vector::store(place, accumulate ? Vector::add(Vector::load(place), sums[row][v]) : sums[row][v]);
    }
  }
}

using Block = void (*)(const Product&);

// The block of `rows` rows; rows are 1 to Vector::kRows.
template <int64_t kVectors, bool kTransposed, int64_t kRows = Vector::kRows>
Block block_of(int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return block_of<kVectors, kTransposed, kRows - 1>(rows);
  }
  return multiply_block<kRows, kVectors, kTransposed>;
}

// Calls work(first, count) for blocks of nearly equal size, of at most Vector::kRows rows.
template <typename Work>
MRCNN_INLINE void for_each_block(int64_t begin, int64_t end, const Work& work) {
  const int64_t rows = end - begin, blocks = (rows + Vector::kRows - 1) / Vector::kRows;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = begin + rows * block / blocks;
    work(first, begin + rows * (block + 1) / blocks - first);
  }
}

void multiply(const float* windows, int64_t window_stride, const float* filters, int64_t rows, int64_t inputs,
              int64_t outputs, float* output, int64_t output_stride) {
  for (int64_t panel = 0; panel < outputs; panel += kPanel) {
    const int64_t width = outputs - panel < kPanel ? kLanes : kPanel;
    const float* factors = filters + panel * inputs;
    const float* next_panel = factors + width * inputs;  // after the last one comes the next point
    for_each_block(0, rows, [&](int64_t first, int64_t count) {
      const int64_t end = first + count, from = inputs * first / rows, to = inputs * end / rows;
      const bool new_rows = panel == 0 && end < rows;
      const Block block = width == kPanel ? block_of<kPanelVectors, false>(count) : block_of<1, false>(count);
      block({windows + first * window_stride, window_stride, factors, width, inputs,
             output + first * output_stride + panel, output_stride, false,
             new_rows ? windows + end * window_stride : nullptr, next_panel + from * width, (to - from) * width});
    });
  }
}

void multiply_transposed(const float* windows, int64_t window_stride, const float* grads, int64_t grad_stride,
                         int64_t tiles, int64_t begin, int64_t end, int64_t outputs, float* output, bool accumulate) {
  for (int64_t panel = 0; panel < outputs; panel += kPanel) {
    const bool whole = outputs - panel >= kPanel;
    for_each_block(begin, end, [&](int64_t first, int64_t count) {
      const Block block = whole ? block_of<kPanelVectors, true>(count) : block_of<1, true>(count);
      block({windows + first, window_stride, grads + panel, grad_stride, tiles, output + first * outputs + panel,
             outputs, accumulate, nullptr, nullptr, 0});
    });
  }
}

}  // namespace

}  // namespace mrcnn::winograd
