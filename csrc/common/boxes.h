// Boxes as separate arrays of coordinates, and their overlap in the arithmetic of the plain kernels.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "simd.h"

namespace mrcnn {

// Boxes side by side in blocks of kLanes, so that one loop over the lanes of a block becomes a few vector instructions.
constexpr int64_t kLanes = 16;

struct alignas(64) BoxBlock {
  float x1[kLanes], y1[kLanes], x2[kLanes], y2[kLanes], area[kLanes];
};

MRCNN_INLINE void set_box(BoxBlock& block, int64_t lane, const float* box, float offset) {
  block.x1[lane] = box[0];
  block.y1[lane] = box[1];
  block.x2[lane] = box[2];
  block.y2[lane] = box[3];
  block.area[lane] = (box[2] - box[0] + offset) * (box[3] - box[1] + offset);
}

// A box that overlaps nothing: its IoU with every box is 0.
constexpr float kNowhere[4] = {std::numeric_limits<float>::max(), 0, std::numeric_limits<float>::lowest(), 0};

// IoU of the box in `lane` with one other; 0 where the union is not positive.
MRCNN_INLINE float iou(const BoxBlock& block, int64_t lane, const float* box, float area, float offset) {
  const float x1 = block.x1[lane] > box[0] ? block.x1[lane] : box[0];
  const float y1 = block.y1[lane] > box[1] ? block.y1[lane] : box[1];
  const float x2 = block.x2[lane] < box[2] ? block.x2[lane] : box[2];
  const float y2 = block.y2[lane] < box[3] ? block.y2[lane] : box[3];
  const float width = x2 - x1 + offset, height = y2 - y1 + offset;
  const float intersection = (width > 0 ? width : 0.0f) * (height > 0 ? height : 0.0f);
  const float united = block.area[lane] + area - intersection;
  const float ratio = intersection / united;
  return united > 0 ? ratio : 0.0f;
}

}  // namespace mrcnn
