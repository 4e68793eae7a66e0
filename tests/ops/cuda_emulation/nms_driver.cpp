// The launcher of nms_cuda.cu for ctypes. All pointers are the host's.
#include "../../../csrc/nms/nms_cuda.h"

extern "C" int mask_words(int64_t num_boxes) { return static_cast<int>(mrcnn::nms::cuda::mask_words(num_boxes)); }

extern "C" int suppress(const float* boxes, const bool* valid, int64_t num_rows, int64_t num_boxes, double threshold,
                        int64_t offset, int64_t rows_at_once, uint32_t* masks, bool* keep) {
  const mrcnn::nms::cuda::Problem problem{
      boxes, valid, num_rows, num_boxes, static_cast<float>(threshold), static_cast<float>(offset)};
  return static_cast<int>(mrcnn::nms::cuda::suppress(problem, rows_at_once, masks, keep, nullptr));
}
