// Pixels to a network's input, a line of a padded batch at a time, for CPUs. Nothing here knows torch.
//
// Values are rounded after the subtraction and after the division, as PyTorch's own operators round them.
#pragma once

#include <cstdint>

namespace mrcnn::normalize_images {

constexpr int64_t kChannels = 3;

// One line of an image: where its channels start. They are planes, or they alternate in an order of their own.
template <typename T>
struct Line {
  T* channel[kChannels];
  bool interleaved;
};

// For each channel of the output.
struct Statistics {
  float mean[kChannels];
  float std[kChannels];
  bool divides;  // otherwise std is not looked at
};

// Fills `output` with `count` normalised pixels of `input`, and with zeros from there to `width`. Channels of the output
// that alternate do so in their own order.
void normalize_line(const Line<const uint8_t>& input, const Line<float>& output, int64_t count, int64_t width,
                    const Statistics& statistics);

}  // namespace mrcnn::normalize_images
