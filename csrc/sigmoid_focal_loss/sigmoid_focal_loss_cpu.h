// The focal loss of a range of logits, and its gradient, for CPUs. Nothing here knows torch. R boxes, K classes.
#pragma once

#include <cstdint>

#include "../common/half.h"

namespace mrcnn::sigmoid_focal_loss {

constexpr int64_t kChunk = 2048;  // logits; their margins stay in the first-level cache

template <typename T>
struct Problem {
  const T* logits;         // [R, K]
  const int64_t* targets;  // [R] 0 is background, 1 to K a class, negative ignored
  int64_t num_rows;
  int64_t num_classes;
  double gamma, alpha;

  int64_t size() const { return num_rows * num_classes; }
  int64_t num_chunks() const { return (size() + kChunk - 1) / kChunk; }
};

#define MRCNN_DECLARE(T)                                                      \
  /* The sum of the losses of one chunk of the logits. */                     \
  double sum_chunk(const Problem<T>& problem, int64_t chunk);                 \
  /* Writes `scale` times the gradient of one chunk into gradient: [R, K]. */ \
  void differentiate_chunk(const Problem<T>& problem, int64_t chunk, double scale, T* gradient);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

}  // namespace mrcnn::sigmoid_focal_loss
