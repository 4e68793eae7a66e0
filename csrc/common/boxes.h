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

// Width times height, each with `offset` added: 1 where boxes are inclusive pixels.
MRCNN_INLINE float area_of(const float* box, float offset) {
  return (box[2] - box[0] + offset) * (box[3] - box[1] + offset);
}

MRCNN_INLINE void set_box(BoxBlock& block, int64_t lane, const float* box, float offset) {
  block.x1[lane] = box[0];
  block.y1[lane] = box[1];
  block.x2[lane] = box[2];
  block.y2[lane] = box[3];
  block.area[lane] = area_of(box, offset);
}

// A box that overlaps nothing: its IoU with every box is 0.
constexpr float kNowhere[4] = {std::numeric_limits<float>::max(), 0, std::numeric_limits<float>::lowest(), 0};

// IoU of a box with another one, whose area is `other_area`; 0 where the union is not positive.
MRCNN_INLINE float iou(float x1, float y1, float x2, float y2, float area, const float* other, float other_area,
                       float offset) {
  const float left = x1 > other[0] ? x1 : other[0];
  const float top = y1 > other[1] ? y1 : other[1];
  const float right = x2 < other[2] ? x2 : other[2];
  const float bottom = y2 < other[3] ? y2 : other[3];
  const float width = right - left + offset, height = bottom - top + offset;
  const float intersection = (width > 0 ? width : 0.0f) * (height > 0 ? height : 0.0f);
  const float united = area + other_area - intersection;
  const float ratio = intersection / united;
  return united > 0 ? ratio : 0.0f;
}

// IoU of the box in `lane` with one other.
MRCNN_INLINE float iou(const BoxBlock& block, int64_t lane, const float* box, float area, float offset) {
  return iou(block.x1[lane], block.y1[lane], block.x2[lane], block.y2[lane], block.area[lane], box, area, offset);
}

}  // namespace mrcnn
