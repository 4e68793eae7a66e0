#include "nms_cpu.h"

#include <cstring>

namespace mrcnn::nms {

namespace {

// Whether one of the kept boxes overlaps this one by more than the threshold.
MRCNN_MULTIVERSION
bool is_suppressed(const BoxBlock* MRCNN_RESTRICT kept, int64_t num_blocks, const float* MRCNN_RESTRICT box, float area,
                   float threshold, float offset) {
  const float own[4] = {box[0], box[1], box[2], box[3]};
  for (int64_t index = 0; index < num_blocks; ++index) {
    int32_t over = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      over |= iou(kept[index], lane, own, area, offset) > threshold ? 1 : 0;
    }
    if (over) return true;
  }
  return false;
}

}  // namespace

void suppress_row(const float* boxes, const bool* valid, int64_t num_boxes, float threshold, float offset,
                  std::vector<BoxBlock>& kept, bool* keep) {
  std::memset(keep, 0, num_boxes * sizeof(bool));
  int64_t num_kept = 0;
  for (int64_t index = 0; index < num_boxes; ++index) {
    if (!valid[index]) continue;
    const float* box = boxes + index * 4;
    const int64_t num_blocks = (num_kept + kLanes - 1) / kLanes;
    const float area = (box[2] - box[0] + offset) * (box[3] - box[1] + offset);
    if (is_suppressed(kept.data(), num_blocks, box, area, threshold, offset)) continue;
    const int64_t lane = num_kept % kLanes;
    if (lane == 0) {
      if (num_blocks == static_cast<int64_t>(kept.size())) kept.emplace_back();
      for (int64_t empty = 0; empty < kLanes; ++empty) set_box(kept[num_blocks], empty, kNowhere, offset);
    }
    set_box(kept[num_kept / kLanes], lane, box, offset);
    ++num_kept;
    keep[index] = true;
  }
}

}  // namespace mrcnn::nms
