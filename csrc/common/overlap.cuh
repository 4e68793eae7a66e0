// Overlap of two boxes on CUDA devices. It gives the numbers of iou() in boxes.h, bit for bit, but divides only
// where boxes meet. A coordinate that is not a number makes its box's area none, so it does not matter which operand
// fminf and fmaxf then return.
#pragma once

#include "boxes.h"
#include "cuda.cuh"

namespace mrcnn {

using Corners = Vector<float, 4>;  // x1, y1, x2, y2

__device__ __forceinline__ float shared_width(const Corners& one, const Corners& other, float offset) {
  return fminf(one.values[2], other.values[2]) - fmaxf(one.values[0], other.values[0]) + offset;
}

__device__ __forceinline__ float shared_height(const Corners& one, const Corners& other, float offset) {
  return fminf(one.values[3], other.values[3]) - fmaxf(one.values[1], other.values[1]) + offset;
}

__device__ __forceinline__ float overlap(const Corners& one, float area, const Corners& other, float other_area,
                                         float offset) {
  const float width = shared_width(one, other, offset), height = shared_height(one, other, offset);
  if (!(width > 0.0f && height > 0.0f)) return 0.0f;
  const float intersection = width * height, united = area + other_area - intersection;
  return united > 0.0f ? intersection / united : 0.0f;
}

}  // namespace mrcnn
