// Polygons cropped to a box and filled into a small square bitmap, on CUDA devices. Nothing here knows torch.
// V vertices, Q rings, I instances, P boxes.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"

namespace mrcnn::mask_targets {

// The offsets of one bitmap's pixels must stay far below 2^31.
constexpr int64_t kLargestResolution = 32767;

// All pointers are the device's.
struct PackedPolygons {
  const float* coords;  // [V, 2] x, y
  int64_t num_vertices;
  const int64_t* ring_offsets;  // [Q + 1], counts vertices
  int64_t num_rings;
  const int64_t* instance_offsets;  // [I + 1], counts rings
  int64_t num_instances;
};

// Fills targets: [P, resolution, resolution] with 0 and 1, bit for bit as the CPU kernel does. A negative instance
// gives zeros; an instance that is not there, or whose offsets do not ascend within their bounds, gives NaN.
// instances: [P]; boxes: [P, 4] x1, y1, x2, y2.
cudaError_t fill_targets(const PackedPolygons& polygons, const int64_t* instances, const float* boxes,
                         int64_t num_boxes, int64_t resolution, float* targets, cudaStream_t stream);

}  // namespace mrcnn::mask_targets
