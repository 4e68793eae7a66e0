// Greedy non-maximum suppression of one row of boxes, for CPUs. Nothing here knows torch.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/boxes.h"

namespace mrcnn::nms {

// boxes: [num_boxes, 4] (x1, y1, x2, y2) by descending score. valid, keep: [num_boxes]. threshold: at least 0.
// kept: scratch, may come from another row.
void suppress_row(const float* boxes, const bool* valid, int64_t num_boxes, float threshold, float offset,
                  std::vector<BoxBlock>& kept, bool* keep);

}  // namespace mrcnn::nms
