// Masks resized bilinearly to a frame of an image and cut at a threshold, for CPUs. Nothing here knows torch.
//
// Values are those of torch's interpolate (bilinear, align_corners=False, one channel) on the CPU to the bit: the same
// two formulas, chosen by the size of the output, with products fused into sums where torch's compiler fuses them.
#pragma once

#include <cstdint>
#include <vector>

namespace mrcnn::paste_masks {

// One mask and where it goes.
struct Paste {
  const float* mask;  // [side, side]
  int64_t side;
  const int64_t* frame;  // x1, y1, x2, y2, inclusive; x2 < x1 or y2 < y1: nothing is pasted
  int64_t height, width;  // of the image
  float threshold;
  bool fused;  // a * b + c is rounded once
};

// Output positions of one axis inside the image: position i lies between the mask's low[i] and high[i].
struct Axis {
  int64_t start = 0;  // in the image
  std::vector<int32_t> low, high;
  std::vector<float> low_weight, high_weight;

  int64_t size() const { return static_cast<int64_t>(low.size()); }
};

// Scratch of one thread.
struct Scratch {
  Axis x, y;
  std::vector<float> values, transposed, line;
  std::vector<int64_t> bounds;
  std::vector<int8_t> sides;
};

// Fills image: [height, width] with value > threshold.
void paste_binary(const Paste& paste, Scratch& scratch, uint8_t* image);

// Fills image: [height, width] with value * 255.
void paste_heat_map(const Paste& paste, Scratch& scratch, uint8_t* image);

// COCO's compressed run lengths of what paste_binary gives.
std::vector<uint8_t> paste_runs(const Paste& paste, Scratch& scratch);

}  // namespace mrcnn::paste_masks
