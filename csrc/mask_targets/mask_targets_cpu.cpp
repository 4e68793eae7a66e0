#include "mask_targets_cpu.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mrcnn::mask_targets {

namespace {

constexpr int64_t kFine = 5;         // fine points per pixel
constexpr float kFar = 800000;       // in pixels of the bitmap: vertices beyond are pulled in, and NaN goes to -kFar
constexpr int64_t kFirstColumn = 2;  // the fine x before the crossing in column 0; that of column n lies kFine * n later

// Where an outline crosses the middles of pixel columns, as bits of a column-major bitmap.
class Crossings {
 public:
  Crossings(int64_t resolution, uint64_t* bits) : resolution_(resolution), bits_(bits) {}

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
  // Columns whose crossing lies between the fine x and x + 1 with low <= x < high.
  std::pair<int64_t, int64_t> columns(int64_t low, int64_t high) const {
    const int64_t first = low <= kFirstColumn ? 0 : (low - kFirstColumn + kFine - 1) / kFine;
    const int64_t end = high <= kFirstColumn ? 0 : (high - kFirstColumn + kFine - 1) / kFine;
    return {first, std::min(end, resolution_)};
  }

  // y: the upper of the two fine points beside the crossing.
  void flip(int64_t column, int64_t y) {
    const int64_t row = y <= kFirstColumn ? 0 : std::min((y - kFirstColumn + kFine - 1) / kFine, resolution_);
    const int64_t position = column * resolution_ + row;
    bits_[position >> 6] ^= uint64_t{1} << (position & 63);
  }

  // One point for each x; x1 < x2.
  void draw_flat(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
    const double slope = static_cast<double>(y2 - y1) / static_cast<double>(x2 - x1);
    const auto y_at = [&](int64_t step) {
      return static_cast<int64_t>(static_cast<double>(y1) + slope * static_cast<double>(step) + 0.5);
    };
    const auto [first, end] = columns(x1, x2);
    for (int64_t column = first; column < end; ++column) {
      const int64_t step = kFine * column + kFirstColumn - x1;
      flip(column, std::min(y_at(step), y_at(step + 1)));
    }
  }

  // One point for each y; y1 < y2. The x of successive points differ by at most 1.
  void draw_steep(int64_t x1, int64_t y1, int64_t x2, int64_t y2) {
    const double slope = static_cast<double>(x2 - x1) / static_cast<double>(y2 - y1);
    const bool rises = x2 > x1;
    const auto [first, end] = columns(std::min(x1, x2), std::max(x1, x2));
    for (int64_t column = first; column < end; ++column) {
      const int64_t before = kFine * column + kFirstColumn;
      const auto has_crossed = [&](int64_t step) {
        const auto x =
            static_cast<int64_t>(static_cast<double>(x1) + slope * static_cast<double>(step) + 0.5);
        return rises ? x > before : x <= before;
      };
      // The first step behind the crossing: from an estimate to the exact one, which is seldom more than a step away.
      const double estimate = (static_cast<double>(before) + 0.5 - static_cast<double>(x1)) / slope;
      int64_t step = std::clamp(static_cast<int64_t>(estimate), int64_t{1}, y2 - y1);
      while (step > 1 && has_crossed(step - 1)) --step;
      while (step < y2 - y1 && !has_crossed(step)) ++step;
      flip(column, y1 + step - 1);
    }
  }

  const int64_t resolution_;
  uint64_t* const bits_;
};

// A coordinate of the box's bitmap on the fine grid. The product and the sum are COCO's, in double.
int64_t to_fine(float coordinate) {
  const float near = coordinate >= -kFar ? std::min(coordinate, kFar) : -kFar;
  return static_cast<int64_t>(static_cast<double>(kFine) * static_cast<double>(near) + 0.5);
}

// Each bit becomes the parity of all bits up to itself.
void fill_by_parity(std::vector<uint64_t>& bits) {
  uint64_t inside = 0;
  for (uint64_t& word : bits) {
    for (int shift = 1; shift < 64; shift *= 2) word ^= word << shift;
    word ^= inside;
    inside = uint64_t{0} - (word >> 63);
  }
}

}  // namespace

void fill_target(const Polygons& polygons, int64_t instance, const float* box, int64_t resolution, Bitmaps& bitmaps,
                 float* target) {
  std::fill_n(target, resolution * resolution, 0.0f);
  if (instance < 0) return;
  const float side = static_cast<float>(resolution);
  const float scale_x = side / std::max(box[2] - box[0], 1.0f), scale_y = side / std::max(box[3] - box[1], 1.0f);
  // One bit more than there are pixels: a crossing below the last column ends there.
  const int64_t num_words = resolution * resolution / 64 + 1;
  bitmaps.all.assign(num_words, 0);
  for (int64_t ring = polygons.instance_offsets[instance]; ring < polygons.instance_offsets[instance + 1]; ++ring) {
    const int64_t begin = polygons.ring_offsets[ring], end = polygons.ring_offsets[ring + 1];
    if (begin == end) continue;
    bitmaps.ring.assign(num_words, 0);
    Crossings crossings(resolution, bitmaps.ring.data());
    const auto fine_x = [&](int64_t vertex) { return to_fine((polygons.coords[vertex * 2] - box[0]) * scale_x); };
    const auto fine_y = [&](int64_t vertex) { return to_fine((polygons.coords[vertex * 2 + 1] - box[1]) * scale_y); };
    int64_t x = fine_x(end - 1), y = fine_y(end - 1);
    for (int64_t vertex = begin; vertex < end; ++vertex) {
      const int64_t next_x = fine_x(vertex), next_y = fine_y(vertex);
      crossings.draw(x, y, next_x, next_y);
      x = next_x;
      y = next_y;
    }
    fill_by_parity(bitmaps.ring);
    for (int64_t word = 0; word < num_words; ++word) bitmaps.all[word] |= bitmaps.ring[word];
  }
  for (int64_t column = 0, position = 0; column < resolution; ++column) {
    for (int64_t row = 0; row < resolution; ++row, ++position) {
      target[row * resolution + column] = static_cast<float>(bitmaps.all[position >> 6] >> (position & 63) & 1);
    }
  }
}

}  // namespace mrcnn::mask_targets
