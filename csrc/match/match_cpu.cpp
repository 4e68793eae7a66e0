#include "match_cpu.h"

namespace mrcnn::match {

namespace {

constexpr int64_t kBlocks = kChunk / kLanes;

// The boxes of a chunk and the box around them all.
struct Chunk {
  BoxBlock blocks[kBlocks];
  float around[4];
};

void load(const float* boxes, int64_t num_boxes, float offset, Chunk& chunk) {
  float low[4], high[4];
  for (int64_t side = 0; side < 4; ++side) low[side] = high[side] = boxes[side];
  for (int64_t index = 0; index < num_boxes; ++index) {
    const float* box = boxes + index * 4;
    set_box(chunk.blocks[index / kLanes], index % kLanes, box, offset);
    for (int64_t side = 0; side < 4; ++side) {
      low[side] = box[side] < low[side] ? box[side] : low[side];
      high[side] = box[side] > high[side] ? box[side] : high[side];
    }
  }
  for (int64_t index = num_boxes; index < kChunk; ++index) {
    set_box(chunk.blocks[index / kLanes], index % kLanes, kNowhere, offset);
  }
  chunk.around[0] = low[0];
  chunk.around[1] = low[1];
  chunk.around[2] = high[2];
  chunk.around[3] = high[3];
}

// Whether no box of the chunk can have an IoU other than 0 with this one. Rounding is monotonic, so what holds for the
// box around them holds for each.
bool is_apart(const Chunk& chunk, const float* box, float offset) {
  const float x1 = chunk.around[0] > box[0] ? chunk.around[0] : box[0];
  const float y1 = chunk.around[1] > box[1] ? chunk.around[1] : box[1];
  const float x2 = chunk.around[2] < box[2] ? chunk.around[2] : box[2];
  const float y2 = chunk.around[3] < box[3] ? chunk.around[3] : box[3];
  return x2 - x1 + offset <= 0 || y2 - y1 + offset <= 0;
}

// Updates each box's best IoU and ground truth with ground truth `index`, whose best IoU is returned.
MRCNN_MULTIVERSION
float update_best(const BoxBlock* MRCNN_RESTRICT blocks, const float* MRCNN_RESTRICT box, float area, float offset,
                  int32_t index, float* MRCNN_RESTRICT best_iou, int32_t* MRCNN_RESTRICT best) {
  const float own[4] = {box[0], box[1], box[2], box[3]};
  float highest[kLanes] = {};
  for (int64_t block = 0; block < kBlocks; ++block) {
    float* block_iou = best_iou + block * kLanes;
    int32_t* block_best = best + block * kLanes;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float overlap = iou(blocks[block], lane, own, area, offset);
      const bool better = overlap > block_iou[lane];
      block_iou[lane] = better ? overlap : block_iou[lane];
      block_best[lane] = better ? index : block_best[lane];
      highest[lane] = overlap > highest[lane] ? overlap : highest[lane];
    }
  }
  float result = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) result = highest[lane] > result ? highest[lane] : result;
  return result;
}

// Sets hit: [kChunk] where the IoU equals `wanted`.
MRCNN_MULTIVERSION
void mark_equal(const BoxBlock* MRCNN_RESTRICT blocks, const float* MRCNN_RESTRICT box, float area, float offset,
                float wanted, int32_t* MRCNN_RESTRICT hit) {
  const float own[4] = {box[0], box[1], box[2], box[3]};
  for (int64_t block = 0; block < kBlocks; ++block) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      hit[block * kLanes + lane] |= iou(blocks[block], lane, own, area, offset) == wanted ? 1 : 0;
    }
  }
}

}  // namespace

GroundTruths gather_valid(const float* gt_boxes, const bool* gt_valid, int64_t num_slots, float offset) {
  GroundTruths truths;
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    if (!gt_valid[slot]) continue;
    const float* box = gt_boxes + slot * 4;
    truths.boxes.insert(truths.boxes.end(), box, box + 4);
    truths.areas.push_back((box[2] - box[0] + offset) * (box[3] - box[1] + offset));
    truths.slots.push_back(slot);
  }
  return truths;
}

void match_chunk(const float* boxes, int64_t num_boxes, const GroundTruths& truths, Thresholds thresholds, float offset,
                 int32_t* best, int64_t* matches, float* gt_best) {
  Chunk chunk;
  load(boxes, num_boxes, offset, chunk);
  alignas(64) float best_iou[kChunk] = {};  // an IoU is never negative, so the first ground truth starts as the best
  alignas(64) int32_t best_index[kChunk] = {};
  for (int64_t truth = 0; truth < truths.size(); ++truth) {
    const float* box = truths.boxes.data() + truth * 4;
    gt_best[truth] = is_apart(chunk, box, offset)
                         ? 0.0f
                         : update_best(chunk.blocks, box, truths.areas[truth], offset, static_cast<int32_t>(truth),
                                       best_iou, best_index);
  }
  for (int64_t index = 0; index < num_boxes; ++index) {
    best[index] = best_index[index];
    matches[index] = best_iou[index] < thresholds.low    ? -1
                     : best_iou[index] < thresholds.high ? -2
                                                         : truths.slots[best_index[index]];
  }
}

void restore_chunk(const float* boxes, int64_t num_boxes, const GroundTruths& truths, float offset, const int32_t* best,
                   const float* chunk_best, const float* gt_best, int64_t* matches) {
  Chunk chunk;
  bool is_loaded = false;
  alignas(64) int32_t hit[kChunk];
  for (int64_t truth = 0; truth < truths.size(); ++truth) {
    if (chunk_best[truth] != gt_best[truth]) continue;
    if (!is_loaded) {
      load(boxes, num_boxes, offset, chunk);
      for (int64_t index = 0; index < kChunk; ++index) hit[index] = 0;
      is_loaded = true;
    }
    mark_equal(chunk.blocks, truths.boxes.data() + truth * 4, truths.areas[truth], offset, gt_best[truth], hit);
  }
  if (!is_loaded) return;
  for (int64_t index = 0; index < num_boxes; ++index) {
    if (hit[index]) matches[index] = truths.slots[best[index]];
  }
}

}  // namespace mrcnn::match
