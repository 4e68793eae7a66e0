// Matching of boxes to ground truths by IoU on CUDA devices. Nothing here knows torch.
//
// A first kernel finds each box's best ground truth and, for each chunk of boxes, the best IoU of each ground truth.
// Where low-quality matches are wanted, a second one looks again only into the chunks in which a ground truth reached
// its best: the same arithmetic gives the same numbers, so equality finds the boxes. A maximum does not depend on the
// order in which atomics take it, so neither does the result.
#pragma once

#include <cstdint>

#include "../common/cuda.cuh"

namespace mrcnn::match::cuda {

constexpr int64_t kChunk = 512;  // boxes

// N images, P boxes an image, G ground truth slots. All pointers are the device's; boxes multiples of 16 bytes.
struct Problem {
  const float* boxes;     // [N, P, 4] or [P, 4] (x1, y1, x2, y2)
  int64_t image_stride;   // from one image's boxes to the next one's, in numbers; 0 where all share them
  const float* gt_boxes;  // [N, G, 4]
  const bool* gt_valid;   // [N, G]
  int64_t num_images;
  int64_t num_boxes;
  int64_t num_truths;
  float high, low, offset;

  __host__ __device__ int64_t num_chunks() const { return (num_boxes + kChunk - 1) / kChunk; }
};

// What the first kernel tells the second; need not be cleared. All null where low-quality matches are not wanted.
struct Scratch {
  int32_t* best;         // [N, P] slot of each box's best ground truth
  uint32_t* chunk_best;  // [N, num_chunks, G] bits of each ground truth's best IoU in a chunk
  uint32_t* gt_best;     // [N, G] the same over all chunks
};

// Writes matches: [N, P] slots, -1 or -2, the same as the CPU kernel.
cudaError_t match_boxes(const Problem& problem, const Scratch& scratch, int64_t* matches, cudaStream_t stream);

}  // namespace mrcnn::match::cuda
