// Greedy non-maximum suppression of many rows of boxes on CUDA devices. Nothing here knows torch.
//
// A row is worked off in strips. All pairs of boxes within a strip are compared at once, which fills a bit mask; then
// one block a row walks over the mask; then the boxes that the strip keeps strike out those behind it. So the mask
// covers no more than a strip, however long the row.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"

namespace mrcnn::nms::cuda {

// Boxes compared with one another at once. Training at the published settings has 2000 a row: one strip.
constexpr int64_t kStrip = 2048;

// B rows, K boxes a row. All pointers are the device's.
struct Problem {
  const float* boxes;  // [B, K, 4] (x1, y1, x2, y2) by descending score; a multiple of 16 bytes
  const bool* valid;   // [B, K]
  int64_t num_rows;
  int64_t num_boxes;
  float threshold;  // at least 0
  float offset;
};

// Words that the mask of one row takes.
int64_t mask_words(int64_t num_boxes);

// Writes keep: [B, K], the same as the CPU kernel. masks: mask_words() for each of rows_at_once rows, at least one; it
// need not be cleared.
cudaError_t suppress(const Problem& problem, int64_t rows_at_once, uint32_t* masks, bool* keep, cudaStream_t stream);

}  // namespace mrcnn::nms::cuda
