// The launcher of mask_targets_cuda.cu for ctypes. All pointers are the host's.
#include "../../../csrc/mask_targets/mask_targets_cuda.h"

extern "C" int fill_targets(const float* coords, int64_t num_vertices, const int64_t* ring_offsets, int64_t num_rings,
                            const int64_t* instance_offsets, int64_t num_instances, const int64_t* instances,
                            const float* boxes, int64_t num_boxes, int64_t resolution, float* targets) {
  const mrcnn::mask_targets::PackedPolygons polygons{coords,    num_vertices,     ring_offsets,
                                                     num_rings, instance_offsets, num_instances};
  return static_cast<int>(
      mrcnn::mask_targets::fill_targets(polygons, instances, boxes, num_boxes, resolution, targets, nullptr));
}
