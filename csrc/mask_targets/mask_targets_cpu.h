// Polygons cropped to a box and filled into a small square bitmap, for CPUs. Nothing here knows torch.
//
// The outcome is that of COCO's rleFrPoly: the outline is drawn on a grid five times finer, and each place where it
// crosses the middle of a pixel column flips all pixels behind it in column-major order. Here only those crossings are
// computed, in the same arithmetic, and not the points between them.
#pragma once

#include <cstdint>
#include <vector>

namespace mrcnn::mask_targets {

struct Polygons {
  const float* coords;              // [V, 2] x, y
  const int64_t* ring_offsets;      // [Q + 1]
  const int64_t* instance_offsets;  // [I + 1]
};

// Scratch of one thread.
struct Bitmaps {
  std::vector<uint64_t> ring, all;
};

// Fills target: [resolution, resolution] with 0 and 1. A negative instance gives zeros. box: x1, y1, x2, y2.
void fill_target(const Polygons& polygons, int64_t instance, const float* box, int64_t resolution, Bitmaps& bitmaps,
                 float* target);

}  // namespace mrcnn::mask_targets
