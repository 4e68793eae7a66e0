#include "winograd_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace mrcnn::winograd {

namespace {

constexpr int64_t kMostAcross = 64;  // maps side by side that are tried

int64_t tiles_of(int64_t pixels) { return (pixels + kTile - 1) / kTile; }

const Kernels* choose_kernels() {
  const char* most = std::getenv("ATEN_CPU_CAPABILITY");
  if (most != nullptr && std::strcmp(most, "default") == 0) return nullptr;
  if (most != nullptr && std::strcmp(most, "avx2") == 0) return avx2_kernels();
  return avx512_kernels() != nullptr ? avx512_kernels() : avx2_kernels();
}

// Where lines of the plane lie: the index of the map and the line in it, or -1 on the zeros between.
struct Line {
  int64_t map, inside;
};

Line find_line(int64_t line, int64_t extent) {
  const int64_t inside = line < 0 ? -1 : line % (extent + 1);
  return {line / (extent + 1), inside < extent ? inside : -1};
}

}  // namespace

const Kernels* kernels() {
  static const Kernels* const best = choose_kernels();
  return best;
}

Plane make_plane(int64_t images, int64_t height, int64_t width) {
  Plane best{images, height, width, 0, 0, 0};
  for (int64_t across = 1; across <= std::min(images, kMostAcross); ++across) {
    const int64_t down = (images + across - 1) / across;
    const Plane plane{images,
                      height,
                      width,
                      across,
                      tiles_of(down * (height + 1) - 1),
                      tiles_of(across * (width + 1) - 1)};
    if (best.across == 0 || plane.tiles() < best.tiles()) best = plane;
  }
  return best;
}

void locate(const Plane& plane, int64_t tile, int64_t size, int64_t first, int64_t channels, int64_t* offsets) {
  const int64_t top = tile / plane.tiles_across * kTile + first, left = tile % plane.tiles_across * kTile + first;
  Line columns[kWindow];
  for (int64_t x = 0; x < size; ++x) columns[x] = find_line(left + x, plane.width);
  for (int64_t y = 0; y < size; ++y) {
    const Line row = find_line(top + y, plane.height);
    for (int64_t x = 0; x < size; ++x) {
      const Line column = columns[x];
      const int64_t image = row.map * plane.across + column.map;
      const bool there = row.inside >= 0 && column.inside >= 0 && column.map < plane.across && image < plane.images;
      const int64_t pixel = (image * plane.height + row.inside) * plane.width + column.inside;
      offsets[y * size + x] = there ? pixel * channels : -1;
    }
  }
}

}  // namespace mrcnn::winograd
