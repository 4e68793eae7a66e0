// What COCO's evaluation computes for one image and category: masks from polygons, their overlaps, and which detection
// finds which object. For CPUs; nothing here knows torch.
#pragma once

#include <cstdint>
#include <vector>

namespace mrcnn::coco_eval {

// A mask as begin and end of each run of set pixels, ascending in column-major order; pixels beyond 2^32 do not exist.
using Changes = std::vector<uint32_t>;

// Many masks in COCO's text of run lengths.
struct Texts {
  const uint8_t* text;
  const int64_t* offsets;

  const uint8_t* begin(int64_t index) const { return text + offsets[index]; }
  int64_t size(int64_t index) const { return offsets[index + 1] - offsets[index]; }
};

// Scratch of one thread.
struct Scratch {
  Changes ring, merged, all;
  std::vector<Changes> objects;
  std::vector<int64_t> object_areas;
  std::vector<int32_t> order;
  std::vector<uint8_t> taken;
};

// One object's outline: rings of vertices x, y in pixels.
struct Outline {
  const double* coords;           // [V, 2]
  const int64_t* ring_offsets;    // [num_rings + 1]
  int64_t num_rings;
  int64_t height, width;          // of the image
};

// The union of the filled rings, each as COCO's rleFrPoly fills it, as text.
std::vector<uint8_t> rasterize(const Outline& outline, Scratch& scratch);

// Number of set pixels.
int64_t area(const uint8_t* text, int64_t size);

// Fills ious: [num_detections, num_objects] with intersection over union, or over the detection where is_crowd.
void overlaps(const Texts& detections, int64_t first_detection, int64_t num_detections, const Texts& objects,
              int64_t first_object, int64_t num_objects, const uint8_t* is_crowd, Scratch& scratch, double* ious);

// The detections of one image and category in descending order of their scores, and its objects.
struct Group {
  const double* ious;  // [num_detections, num_objects]
  int64_t num_detections, num_objects;
  const uint8_t* is_ignored;  // [num_objects]
  const uint8_t* is_crowd;    // [num_objects]
};

// Fills matches: [num_detections] with the object that each detection finds, or -1, at one threshold.
void match(const Group& group, double threshold, Scratch& scratch, int32_t* matches);

}  // namespace mrcnn::coco_eval
