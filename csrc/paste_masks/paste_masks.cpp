// Host side of mrcnn::paste_masks and mrcnn::paste_masks_rle on CPUs: checks, memory, threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstring>
#include <tuple>

#include "../common/parallel.h"
#include "paste_masks_cpu.h"

namespace mrcnn {

namespace {

using paste_masks::Paste;
using paste_masks::Scratch;

// The arguments of both ops, checked, with their data dense.
class Masks {
 public:
  Masks(const at::Tensor& masks, const at::Tensor& frames, int64_t height, int64_t width, double threshold, bool fused)
      : height_(height), width_(width), threshold_(static_cast<float>(threshold)), fused_(fused) {
    TORCH_CHECK_VALUE(masks.dim() == 3, "paste_masks: masks must have the shape [R, S, S], got ", masks.sizes());
    TORCH_CHECK_VALUE(masks.size(1) == masks.size(2), "paste_masks: masks must be square, got ", masks.sizes());
    TORCH_CHECK_VALUE(frames.dim() == 2 && frames.size(0) == masks.size(0) && frames.size(1) == 4,
                      "paste_masks: frames must have the shape [", masks.size(0), ", 4], got ", frames.sizes());
    TORCH_CHECK_TYPE(masks.scalar_type() == at::kFloat, "paste_masks: masks must be float32, got ",
                     masks.scalar_type());
    TORCH_CHECK_TYPE(frames.scalar_type() == at::kLong, "paste_masks: frames must be int64, got ",
                     frames.scalar_type());
    TORCH_CHECK_VALUE(height >= 1 && width >= 1, "paste_masks: image_size must be positive, got (", height, ", ",
                      width, ")");
    masks_ = masks.contiguous();
    frames_ = frames.contiguous();
  }

  int64_t size() const { return masks_.size(0); }

  Paste operator[](int64_t index) const {
    const int64_t side = masks_.size(1);
    return {masks_.const_data_ptr<float>() + index * side * side,
            side,
            frames_.const_data_ptr<int64_t>() + index * 4,
            height_,
            width_,
            threshold_,
            fused_};
  }

 private:
  at::Tensor masks_, frames_;
  int64_t height_, width_;
  float threshold_;
  bool fused_;
};

at::Tensor paste(const at::Tensor& masks, const at::Tensor& frames, int64_t height, int64_t width, double threshold,
                 bool fused) {
  const Masks pastes(masks, frames, height, width, threshold, fused);
  const bool binary = threshold >= 0;
  at::Tensor images = at::empty({pastes.size(), height, width}, masks.options().dtype(binary ? at::kBool : at::kByte));
  auto* data = static_cast<uint8_t*>(images.mutable_data_ptr());
  for_each_item(
      pastes.size(), [] { return Scratch(); },
      [&](Scratch& scratch, int64_t index) {
        uint8_t* image = data + index * height * width;
        binary ? paste_masks::paste_binary(pastes[index], scratch, image)
               : paste_masks::paste_heat_map(pastes[index], scratch, image);
      });
  return images;
}

std::tuple<at::Tensor, at::Tensor> paste_rle(const at::Tensor& masks, const at::Tensor& frames, int64_t height,
                                             int64_t width, double threshold, bool fused) {
  TORCH_CHECK_VALUE(threshold >= 0, "paste_masks_rle: threshold must be at least 0, got ", threshold);
  const Masks pastes(masks, frames, height, width, threshold, fused);
  std::vector<std::vector<uint8_t>> texts(pastes.size());
  for_each_item(
      pastes.size(), [] { return Scratch(); },
      [&](Scratch& scratch, int64_t index) { texts[index] = paste_masks::paste_runs(pastes[index], scratch); });
  at::Tensor offsets = at::empty({pastes.size() + 1}, frames.options());
  int64_t* ends = offsets.mutable_data_ptr<int64_t>();
  ends[0] = 0;
  for (int64_t index = 0; index < pastes.size(); ++index) {
    ends[index + 1] = ends[index] + static_cast<int64_t>(texts[index].size());
  }
  at::Tensor data = at::empty({ends[pastes.size()]}, masks.options().dtype(at::kByte));
  auto* bytes = data.mutable_data_ptr<uint8_t>();
  for (int64_t index = 0; index < pastes.size(); ++index) {
    std::memcpy(bytes + ends[index], texts[index].data(), texts[index].size());
  }
  return {data, offsets};
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("paste_masks", &paste);
  m.impl("paste_masks_rle", &paste_rle);
}

}  // namespace mrcnn
