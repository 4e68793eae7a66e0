// Host side of mrcnn::match_boxes on CPUs: checks, memory, threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "match_checks.h"
#include "match_cpu.h"

namespace mrcnn {

namespace {

// One image: boxes [num_boxes, 4] to its ground truths, of which there is at least one.
void match_image(const float* boxes, int64_t num_boxes, const match::GroundTruths& truths, match::Thresholds thresholds,
                 bool allow_low_quality, float offset, int64_t* matches) {
  const int64_t num_chunks = (num_boxes + match::kChunk - 1) / match::kChunk, num_truths = truths.size();
  std::vector<int32_t> best(num_boxes);
  std::vector<float> chunk_best(num_chunks * num_truths);
  const auto for_chunks = [&](const auto& work) {
    at::parallel_for(0, num_chunks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t start = chunk * match::kChunk;
        work(chunk, start, std::min(match::kChunk, num_boxes - start));
      }
    });
  };
  for_chunks([&](int64_t chunk, int64_t start, int64_t count) {
    match::match_chunk(boxes + start * 4, count, truths, thresholds, offset, best.data() + start, matches + start,
                       chunk_best.data() + chunk * num_truths);
  });
  if (!allow_low_quality) return;
  std::vector<float> gt_best(num_truths, 0.0f);
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const float* row = chunk_best.data() + chunk * num_truths;
    for (int64_t truth = 0; truth < num_truths; ++truth) gt_best[truth] = std::max(gt_best[truth], row[truth]);
  }
  for_chunks([&](int64_t chunk, int64_t start, int64_t count) {
    match::restore_chunk(boxes + start * 4, count, truths, offset, best.data() + start,
                         chunk_best.data() + chunk * num_truths, gt_best.data(), matches + start);
  });
}

at::Tensor match_boxes(const at::Tensor& boxes, const at::Tensor& gt_boxes, const at::Tensor& gt_valid, double high,
                       double low, bool allow_low_quality, int64_t offset) {
  match::check(boxes, gt_boxes, gt_valid, high, low);
  const at::Tensor dense_boxes = boxes.contiguous(), dense_gt = gt_boxes.contiguous();
  const at::Tensor dense_valid = gt_valid.contiguous();
  const int64_t num_images = gt_boxes.size(0), num_slots = gt_boxes.size(1), num_boxes = boxes.size(-2);
  at::Tensor matches = at::empty({num_images, num_boxes}, boxes.options().dtype(at::kLong));
  const float* box_data = dense_boxes.const_data_ptr<float>();
  const int64_t image_stride = boxes.dim() == 2 ? 0 : num_boxes * 4;
  const match::Thresholds thresholds{static_cast<float>(high), static_cast<float>(low)};
  for (int64_t image = 0; image < num_images; ++image) {
    const match::GroundTruths truths = match::gather_valid(
        dense_gt.const_data_ptr<float>() + image * num_slots * 4,
        dense_valid.const_data_ptr<bool>() + image * num_slots, num_slots, static_cast<float>(offset));
    int64_t* image_matches = matches.mutable_data_ptr<int64_t>() + image * num_boxes;
    if (truths.size() == 0) {
      std::fill_n(image_matches, num_boxes, -1);
    } else {
      match_image(box_data + image * image_stride, num_boxes, truths, thresholds, allow_low_quality,
                  static_cast<float>(offset), image_matches);
    }
  }
  return matches;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) { m.impl("match_boxes", &match_boxes); }

}  // namespace mrcnn
