#include "mask_targets_cpu.h"

#include <algorithm>
#include <cmath>

#include "../common/outline.h"

namespace mrcnn::mask_targets {

namespace {

constexpr float kFar = 800000;  // in pixels of the bitmap: vertices beyond are pulled in, and NaN goes to -kFar

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
    Crossings crossings(resolution, resolution, [&, bits = bitmaps.ring.data()](int64_t column, int64_t row) {
      const int64_t position = column * resolution + row;
      bits[position >> 6] ^= uint64_t{1} << (position & 63);
    });
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
