#include "normalize_images_cpu.h"

#include <algorithm>

#include "../common/simd.h"

namespace mrcnn::normalize_images {

namespace {

// Pixels that are taken apart at a time; their bytes stay in the nearest cache.
constexpr int64_t kBlock = 256;

template <bool kDivides>
MRCNN_INLINE float normalized(uint8_t value, float mean, float std) {
  const float difference = static_cast<float>(value) - mean;
  return kDivides ? difference / std : difference;
}

template <bool kDivides>
MRCNN_INLINE void convert(const uint8_t* MRCNN_RESTRICT values, float* MRCNN_RESTRICT output, int64_t count, float mean,
                          float std) {
  for (int64_t x = 0; x < count; ++x) output[x] = normalized<kDivides>(values[x], mean, std);
}

MRCNN_MULTIVERSION
void convert_plane(const uint8_t* values, float* output, int64_t count, float mean, float std, bool divides) {
  divides ? convert<true>(values, output, count, mean, std) : convert<false>(values, output, count, mean, std);
}

// Channels that alternate become planes, in the order of the memory.
MRCNN_MULTIVERSION
void split_pixels(const uint8_t* MRCNN_RESTRICT pixels, int64_t count, uint8_t (*MRCNN_RESTRICT planes)[kBlock]) {
  for (int64_t x = 0; x < count; ++x) {
    planes[0][x] = pixels[kChannels * x];
    planes[1][x] = pixels[kChannels * x + 1];
    planes[2][x] = pixels[kChannels * x + 2];
  }
}

template <bool kDivides>
MRCNN_INLINE void interleave(const uint8_t* MRCNN_RESTRICT first, const uint8_t* MRCNN_RESTRICT second,
                             const uint8_t* MRCNN_RESTRICT third, float* MRCNN_RESTRICT output, int64_t count,
                             const Statistics& statistics) {
  const float* mean = statistics.mean;
  const float* std = statistics.std;
  for (int64_t x = 0; x < count; ++x) {
    output[kChannels * x] = normalized<kDivides>(first[x], mean[0], std[0]);
    output[kChannels * x + 1] = normalized<kDivides>(second[x], mean[1], std[1]);
    output[kChannels * x + 2] = normalized<kDivides>(third[x], mean[2], std[2]);
  }
}

// Planes become channels that alternate.
MRCNN_MULTIVERSION
void convert_pixels(const uint8_t* const* planes, float* output, int64_t count, const Statistics& statistics) {
  statistics.divides ? interleave<true>(planes[0], planes[1], planes[2], output, count, statistics)
                     : interleave<false>(planes[0], planes[1], planes[2], output, count, statistics);
}

}  // namespace

void normalize_line(const Line<const uint8_t>& input, const Line<float>& output, int64_t count, int64_t width,
                    const Statistics& statistics) {
  uint8_t split[kChannels][kBlock];
  const uint8_t* lowest = *std::min_element(input.channel, input.channel + kChannels);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    if (input.interleaved) split_pixels(lowest + begin * kChannels, size, split);
    const uint8_t* planes[kChannels];
    for (int64_t c = 0; c < kChannels; ++c) {
      planes[c] = input.interleaved ? split[input.channel[c] - lowest] : input.channel[c] + begin;
    }
    if (output.interleaved) {
      convert_pixels(planes, output.channel[0] + begin * kChannels, size, statistics);
      continue;
    }
    for (int64_t c = 0; c < kChannels; ++c) {
      convert_plane(planes[c], output.channel[c] + begin, size, statistics.mean[c], statistics.std[c],
                    statistics.divides);
    }
  }
  if (output.interleaved) {
    std::fill(output.channel[0] + count * kChannels, output.channel[0] + width * kChannels, 0.0f);
    return;
  }
  for (float* channel : output.channel) std::fill(channel + count, channel + width, 0.0f);
}

}  // namespace mrcnn::normalize_images
