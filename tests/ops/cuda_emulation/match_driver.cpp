// The launcher of match_cuda.cu for ctypes. All pointers are the host's.
#include "../../../csrc/match/match_cuda.h"

extern "C" int chunk_size() { return static_cast<int>(mrcnn::match::cuda::kChunk); }

// The last three are null where low-quality matches are not wanted.
extern "C" int match_boxes(const float* boxes, int64_t image_stride, const float* gt_boxes, const bool* gt_valid,
                           int64_t num_images, int64_t num_boxes, int64_t num_truths, double high, double low,
                           int64_t offset, int64_t* matches, int32_t* best, uint32_t* chunk_best, uint32_t* gt_best) {
  const mrcnn::match::cuda::Problem problem{boxes,
                                            image_stride,
                                            gt_boxes,
                                            gt_valid,
                                            num_images,
                                            num_boxes,
                                            num_truths,
                                            static_cast<float>(high),
                                            static_cast<float>(low),
                                            static_cast<float>(offset)};
  return static_cast<int>(
      mrcnn::match::cuda::match_boxes(problem, {best, chunk_best, gt_best}, matches, nullptr));
}
