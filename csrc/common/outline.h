// Where an outline crosses the middles of pixel columns, by COCO's rules: points on a grid five times as fine, one for
// each fine x or y of an edge, whichever differ more. Nothing here knows torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace mrcnn {

constexpr int64_t kFine = 5;  // fine points per pixel

// Of a bitmap [height, width]. Take is called as take(column, row), 0 <= column < width, 0 <= row <= height.
template <typename Take>
class Crossings {
 public:
  Crossings(int64_t height, int64_t width, Take take) : height_(height), width_(width), take_(take) {}

  // Draws an edge between two fine points.
  void draw(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
    const int64_t width = std::abs(x2 - x1), height = std::abs(y2 - y1);
    if (width == 0) return;
    if (width >= height) {
      x1 <= x2 ? draw_flat(x1, y1, x2, y2) : draw_flat(x2, y2, x1, y1);
    } else {
      y1 <= y2 ? draw_steep(x1, y1, x2, y2) : draw_steep(x2, y2, x1, y1);
    }
  }

 private:
  static constexpr int64_t kFirst = 2;  // the fine x before the crossing in column 0

  // The first column or row whose middle lies at the fine coordinate or behind it.
  static int64_t place_at(int64_t fine, int64_t most) {
    return std::min(fine <= kFirst ? 0 : (fine - kFirst + kFine - 1) / kFine, most);
  }

  // y: the upper of the two fine points beside the crossing.
  void add(int64_t column, int64_t y) { take_(column, place_at(y, height_)); }

  // One point for each x; x1 < x2.
  void draw_flat(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
    const double slope = static_cast<double>(y2 - y1) / static_cast<double>(x2 - x1);
    const auto y_at = [&](int64_t step) {
      return static_cast<int64_t>(static_cast<double>(y1) + slope * static_cast<double>(step) + 0.5);
    };
    for (int64_t column = place_at(x1, width_), end = place_at(x2, width_); column < end; ++column) {
      const int64_t step = kFine * column + kFirst - x1;
      add(column, std::min(y_at(step), y_at(step + 1)));
    }
  }

  // One point for each y; y1 < y2. The x of successive points differ by at most 1.
  void draw_steep(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
    const double slope = static_cast<double>(x2 - x1) / static_cast<double>(y2 - y1);
    const bool rises = x2 > x1;
    const int64_t end = place_at(std::max(x1, x2), width_);
    for (int64_t column = place_at(std::min(x1, x2), width_); column < end; ++column) {
      const int64_t before = kFine * column + kFirst;
      const auto has_crossed = [&](int64_t step) {
        const auto x = static_cast<int64_t>(static_cast<double>(x1) + slope * static_cast<double>(step) + 0.5);
        return rises ? x > before : x <= before;
      };
      // The first step behind the crossing: from an estimate to the exact one, which is seldom more than a step away.
      const double estimate = (static_cast<double>(before) + 0.5 - static_cast<double>(x1)) / slope;
      int64_t step = std::clamp(static_cast<int64_t>(estimate), int64_t{1}, y2 - y1);
      while (step > 1 && has_crossed(step - 1)) --step;
      while (step < y2 - y1 && !has_crossed(step)) ++step;
      add(column, y1 + step - 1);
    }
  }

  const int64_t height_, width_;
  Take take_;
};

}  // namespace mrcnn
