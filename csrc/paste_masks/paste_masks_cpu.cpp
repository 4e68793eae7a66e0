#include "paste_masks_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../common/rle.h"
#include "../common/simd.h"

namespace mrcnn::paste_masks {

namespace {

constexpr int64_t kFourPointLimit = 128;  // of output height + width; above it torch goes one axis at a time

template <bool kFused>
MRCNN_INLINE float multiply_add(float a, float b, float c) {
  return kFused ? __builtin_fmaf(a, b, c) : a * b + c;
}

// Sets up the part of the frame's axis [first, last] that lies in [0, extent). False when there is none.
bool locate(int64_t first, int64_t last, int64_t extent, int64_t side, bool fused, Axis& axis) {
  axis.start = std::max<int64_t>(first, 0);
  const int64_t count = std::min(last + 1, extent) - axis.start, size = last - first + 1;
  if (count <= 0) return false;
  axis.low.resize(count);
  axis.high.resize(count);
  axis.low_weight.resize(count);
  axis.high_weight.resize(count);
  const float scale = static_cast<float>(side) / static_cast<float>(size);
  for (int64_t index = 0; index < count; ++index) {
    const int64_t position = axis.start + index - first;
    if (size == side) {
      axis.low[index] = axis.high[index] = static_cast<int32_t>(position);
      axis.low_weight[index] = 1;
      axis.high_weight[index] = 0;
      continue;
    }
    const float centre = static_cast<float>(position) + 0.5f;
    const float exact = fused ? std::fma(centre, scale, -0.5f) : centre * scale - 0.5f;
    const float source = exact > 0 ? exact : 0;
    const int32_t low = std::min(static_cast<int32_t>(source), static_cast<int32_t>(side - 1));
    axis.low[index] = low;
    axis.high[index] = std::min(low + 1, static_cast<int32_t>(side - 1));
    axis.high_weight[index] = source - static_cast<float>(low);
    axis.low_weight[index] = 1 - axis.high_weight[index];
  }
  return true;
}

bool locate_both(const Paste& paste, Scratch& scratch) {
  return locate(paste.frame[0], paste.frame[2], paste.width, paste.side, paste.fused, scratch.x) &&
         locate(paste.frame[1], paste.frame[3], paste.height, paste.side, paste.fused, scratch.y);
}

bool is_four_point(const Paste& paste) {
  return paste.frame[2] - paste.frame[0] + paste.frame[3] - paste.frame[1] + 2 <= kFourPointLimit;
}

template <bool kFused>
MRCNN_INLINE float four_points(float y0, float y1, float x0, float x1, float above0, float above1, float below0,
                               float below1) {
  float total = multiply_add<kFused>(y0 * x0, above0, y0 * x1 * above1);
  total = multiply_add<kFused>(y1 * x0, below0, total);
  return multiply_add<kFused>(y1 * x1, below1, total);
}

template <bool kFused>
MRCNN_INLINE void four_point_line(const float* above, const float* below, float y0, float y1, const Axis& x,
                                  int64_t count, float* MRCNN_RESTRICT line) {
  const int32_t* low = x.low.data();
  const int32_t* high = x.high.data();
  const float* w0 = x.low_weight.data();
  const float* w1 = x.high_weight.data();
  for (int64_t i = 0; i < count; ++i) {
    line[i] = four_points<kFused>(y0, y1, w0[i], w1[i], above[low[i]], above[high[i]], below[low[i]], below[high[i]]);
  }
}

// line[i] = first[i] * w0 + second[i] * w1.
template <bool kFused>
MRCNN_INLINE void blend_line(const float* first, const float* second, float w0, float w1, int64_t count,
                             float* MRCNN_RESTRICT line) {
  for (int64_t i = 0; i < count; ++i) line[i] = multiply_add<kFused>(first[i], w0, second[i] * w1);
}

// One row of the mask resized along x.
template <bool kFused>
MRCNN_INLINE void stretch_line(const float* row, const Axis& x, int64_t count, float* MRCNN_RESTRICT line) {
  const int32_t* low = x.low.data();
  const int32_t* high = x.high.data();
  const float* w0 = x.low_weight.data();
  const float* w1 = x.high_weight.data();
  for (int64_t i = 0; i < count; ++i) line[i] = multiply_add<kFused>(row[low[i]], w0[i], row[high[i]] * w1[i]);
}

// The functions below are the vectorised entry points: a template cannot be compiled for several instruction sets.
MRCNN_MULTIVERSION
void compute_four_point_line(const float* above, const float* below, float y0, float y1, const Axis& x, int64_t count,
                             bool fused, float* line) {
  fused ? four_point_line<true>(above, below, y0, y1, x, count, line)
        : four_point_line<false>(above, below, y0, y1, x, count, line);
}

MRCNN_MULTIVERSION
void compute_blend_line(const float* first, const float* second, float w0, float w1, int64_t count, bool fused,
                        float* line) {
  fused ? blend_line<true>(first, second, w0, w1, count, line) : blend_line<false>(first, second, w0, w1, count, line);
}

MRCNN_MULTIVERSION
void compute_stretch_line(const float* row, const Axis& x, int64_t count, bool fused, float* line) {
  fused ? stretch_line<true>(row, x, count, line) : stretch_line<false>(row, x, count, line);
}

MRCNN_MULTIVERSION
void cut_line(const float* MRCNN_RESTRICT line, int64_t count, float threshold, uint8_t* MRCNN_RESTRICT image) {
  for (int64_t i = 0; i < count; ++i) image[i] = line[i] > threshold ? 1 : 0;
}

// sides[i]: 1 above high, -1 below low, 0 between them or not a number.
MRCNN_MULTIVERSION
void compare_line(const float* MRCNN_RESTRICT line, int64_t count, float low, float high,
                  int8_t* MRCNN_RESTRICT sides) {
  for (int64_t i = 0; i < count; ++i) sides[i] = static_cast<int8_t>((line[i] > high ? 1 : 0) - (line[i] < low ? 1 : 0));
}

// Calls write(line, row, count) with the values of each row of the frame inside the image.
template <typename Write>
void for_lines(const Paste& paste, Scratch& scratch, const Write& write) {
  const Axis& x = scratch.x;
  const Axis& y = scratch.y;
  const int64_t side = paste.side, count = x.size();
  const bool four_point = is_four_point(paste);
  scratch.line.resize(count);
  if (!four_point) {
    scratch.values.resize(side * count);
    for (int64_t row = y.low.front(); row <= y.high.back(); ++row) {
      compute_stretch_line(paste.mask + row * side, x, count, paste.fused, scratch.values.data() + row * count);
    }
  }
  const float* source = four_point ? paste.mask : scratch.values.data();
  const int64_t stride = four_point ? side : count;
  for (int64_t row = 0; row < y.size(); ++row) {
    const float* first = source + y.low[row] * stride;
    const float* second = source + y.high[row] * stride;
    const float w0 = y.low_weight[row], w1 = y.high_weight[row];
    if (four_point) {
      compute_four_point_line(first, second, w0, w1, x, count, paste.fused, scratch.line.data());
    } else {
      compute_blend_line(first, second, w0, w1, count, paste.fused, scratch.line.data());
    }
    write(scratch.line.data(), row, count);
  }
}

template <typename Convert>
void paste_dense(const Paste& paste, Scratch& scratch, uint8_t* image, const Convert& convert) {
  std::memset(image, 0, paste.height * paste.width);
  if (!locate_both(paste, scratch)) return;
  for_lines(paste, scratch, [&](const float* line, int64_t row, int64_t count) {
    convert(line, count, image + (scratch.y.start + row) * paste.width + scratch.x.start);
  });
}

// Runs of set pixels in column-major order, as the places where the value changes.
class Runs {
 public:
  void add(int64_t begin, int64_t end) {
    if (!changes_.empty() && changes_.back() == begin) {
      changes_.back() = end;
    } else {
      changes_.push_back(begin);
      changes_.push_back(end);
    }
  }

  // COCO's text of the run lengths.
  std::vector<uint8_t> compress(int64_t num_pixels) const {
    std::vector<uint8_t> text;
    append_run_text(changes_, num_pixels, text);
    return text;
  }

 private:
  std::vector<int64_t> changes_;
};

// Bounds of the ranges of output rows that lie between the same two rows of the mask.
void find_cells(const Axis& y, std::vector<int64_t>& bounds) {
  bounds.assign(1, 0);
  for (int64_t row = 1; row < y.size(); ++row) {
    if (y.low[row] != y.low[row - 1]) bounds.push_back(row);
  }
  bounds.push_back(y.size());
}

// One column of the frame. Where both ends of a cell lie clearly on one side of the threshold all of it does; elsewhere
// each pixel is computed exactly.
class Column {
 public:
  Column(const Paste& paste, Scratch& scratch) : paste_(paste), scratch_(scratch), four_point_(is_four_point(paste)) {
    const int64_t side = paste.side;
    scratch.transposed.resize(side * side);
    float largest = std::fabs(paste.threshold);
    for (int64_t row = 0; row < side; ++row) {
      for (int64_t column = 0; column < side; ++column) {
        const float value = paste.mask[row * side + column];
        scratch.transposed[column * side + row] = value;
        // Written so that NaN stays.
        largest = std::fabs(value) <= largest ? largest : std::fabs(value);
      }
    }
    // All roundings together stay below 1e-6 of the largest value. Without a finite one every pixel is computed.
    const float margin = largest < std::numeric_limits<float>::max() / 4 ? 4e-6f * largest
                                                                        : std::numeric_limits<float>::infinity();
    below_ = paste.threshold - margin;
    above_ = paste.threshold + margin;
    scratch.line.resize(side);
    scratch.sides.resize(side);
    find_cells(scratch.y, scratch.bounds);
  }

  void add_to(Runs& runs, int64_t x) {
    const Axis& axis = scratch_.x;
    const int64_t side = paste_.side, base = (axis.start + x) * paste_.height + scratch_.y.start;
    left_ = scratch_.transposed.data() + axis.low[x] * side;
    right_ = scratch_.transposed.data() + axis.high[x] * side;
    w0_ = axis.low_weight[x];
    w1_ = axis.high_weight[x];
    compute_blend_line(left_, right_, w0_, w1_, side, paste_.fused, scratch_.line.data());
    compare_line(scratch_.line.data(), side, below_, above_, scratch_.sides.data());
    for (size_t cell = 0; cell + 1 < scratch_.bounds.size(); ++cell) {
      const int64_t begin = scratch_.bounds[cell], end = scratch_.bounds[cell + 1];
      const int8_t first = scratch_.sides[scratch_.y.low[begin]], second = scratch_.sides[scratch_.y.high[begin]];
      if (first == second && first != 0) {
        if (first > 0) runs.add(base + begin, base + end);
        continue;
      }
      for (int64_t row = begin; row < end; ++row) {
        if (value(row) > paste_.threshold) runs.add(base + row, base + row + 1);
      }
    }
  }

 private:
  float value(int64_t row) const {
    const Axis& y = scratch_.y;
    const int32_t low = y.low[row], high = y.high[row];
    const float y0 = y.low_weight[row], y1 = y.high_weight[row];
    if (four_point_) {
      return paste_.fused
                 ? four_points<true>(y0, y1, w0_, w1_, left_[low], right_[low], left_[high], right_[high])
                 : four_points<false>(y0, y1, w0_, w1_, left_[low], right_[low], left_[high], right_[high]);
    }
    const float* line = scratch_.line.data();
    return paste_.fused ? multiply_add<true>(line[low], y0, line[high] * y1)
                        : multiply_add<false>(line[low], y0, line[high] * y1);
  }

  const Paste& paste_;
  Scratch& scratch_;
  const bool four_point_;
  float below_, above_;
  const float* left_ = nullptr;
  const float* right_ = nullptr;
  float w0_ = 0, w1_ = 0;
};

}  // namespace

void paste_binary(const Paste& paste, Scratch& scratch, uint8_t* image) {
  paste_dense(paste, scratch, image, [&](const float* line, int64_t count, uint8_t* row) {
    cut_line(line, count, paste.threshold, row);
  });
}

void paste_heat_map(const Paste& paste, Scratch& scratch, uint8_t* image) {
  paste_dense(paste, scratch, image, [](const float* line, int64_t count, uint8_t* row) {
    for (int64_t i = 0; i < count; ++i) row[i] = static_cast<uint8_t>(static_cast<int32_t>(line[i] * 255.0f));
  });
}

std::vector<uint8_t> paste_runs(const Paste& paste, Scratch& scratch) {
  Runs runs;
  if (locate_both(paste, scratch)) {
    Column column(paste, scratch);
    for (int64_t x = 0; x < scratch.x.size(); ++x) column.add_to(runs, x);
  }
  return runs.compress(paste.height * paste.width);
}

}  // namespace mrcnn::paste_masks
