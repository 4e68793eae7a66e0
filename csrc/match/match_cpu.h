// Matching of boxes to the ground truths of one image by IoU, for CPUs. Nothing here knows torch.
//
// A first pass over the boxes, chunk by chunk, finds each box's best ground truth and, per chunk, each ground truth's
// best IoU. Where low-quality matches are wanted, a second pass looks again only into the chunks in which a ground truth
// reached its best: the same arithmetic gives the same numbers, so equality finds the boxes.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/boxes.h"

namespace mrcnn::match {

constexpr int64_t kChunk = 256;  // boxes; a multiple of kLanes

struct GroundTruths {
  std::vector<float> boxes;    // [G, 4], the valid ones
  std::vector<float> areas;    // [G]
  std::vector<int64_t> slots;  // [G] where they stand among all slots

  int64_t size() const { return static_cast<int64_t>(slots.size()); }
};

struct Thresholds {
  float high, low;
};

GroundTruths gather_valid(const float* gt_boxes, const bool* gt_valid, int64_t num_slots, float offset);

// Boxes [0, num_boxes) of one chunk. Writes best: [kChunk] indices into the ground truths, matches: [num_boxes] slots
// or -1, -2, and gt_best: [G] the best IoU of each ground truth in this chunk. There is at least one ground truth.
void match_chunk(const float* boxes, int64_t num_boxes, const GroundTruths& truths, Thresholds thresholds, float offset,
                 int32_t* best, int64_t* matches, float* gt_best);

// Gives the boxes of one chunk that attain a ground truth's best IoU their own best match back. chunk_best: what
// match_chunk wrote for it; gt_best: the maximum over all chunks.
void restore_chunk(const float* boxes, int64_t num_boxes, const GroundTruths& truths, float offset, const int32_t* best,
                   const float* chunk_best, const float* gt_best, int64_t* matches);

}  // namespace mrcnn::match
