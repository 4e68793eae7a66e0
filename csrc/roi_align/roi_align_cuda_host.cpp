// Host side of ROIAlign on CUDA devices: checks, memory, stream. It reads no value back, so the host never waits: a roi
// of an image or a level that is not there, which the CPU refuses with an error, counts as an empty slot.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "../common/dispatch.h"
#include "roi_align_checks.h"
#include "roi_align_cuda.h"

namespace mrcnn::roi_align::cuda {

namespace {

constexpr int64_t kMaxRatio = 1 << 20;  // as in the plain kernel
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

void check_fits(int64_t count, const char* what) {
  TORCH_CHECK_VALUE(count <= INT32_MAX, kOp, ": ", what, " must be at most ", INT32_MAX, " on CUDA, got ", count);
}

// The arguments of a call, dense, in the form of the kernels.
struct Inputs {
  at::Tensor rois, levels;
  int64_t num_images, channels;
  at::IntArrayRef heights, widths, pooled;
  at::ArrayRef<double> scales;
  int64_t sampling_ratio;

  Inputs(const at::Tensor& rois, const std::optional<at::Tensor>& levels, int64_t num_images, int64_t channels,
         at::IntArrayRef heights, at::IntArrayRef widths, at::IntArrayRef pooled, at::ArrayRef<double> scales,
         int64_t sampling_ratio)
      : rois(rois.contiguous()), levels(levels ? levels->contiguous() : at::Tensor()), num_images(num_images),
        channels(channels), heights(heights), widths(widths), pooled(pooled), scales(scales),
        sampling_ratio(std::min(sampling_ratio, kMaxRatio)) {
    TORCH_CHECK_VALUE(heights.size() <= kMaxLevels, kOp, ": at most ", kMaxLevels,
                      " feature maps are possible on CUDA, got ", heights.size());
    check_fits(rois.size(0), "the number of rois");
    check_fits(num_images * static_cast<int64_t>(heights.size()), "the number of feature maps of all images");
    check_fits(channels * pooled[0] * pooled[1], "the number of values of one roi");
    for (size_t level = 0; level < heights.size(); ++level) {
      check_fits(heights[level] * widths[level], "the number of pixels of one feature map");
    }
  }

  template <typename A>
  Problem<A> problem() const {
    Problem<A> problem{rois.const_data_ptr<A>(),
                       levels.defined() ? levels.const_data_ptr<int64_t>() : nullptr,
                       rois.size(0),
                       static_cast<int>(num_images),
                       static_cast<int>(channels),
                       static_cast<int>(pooled[0]),
                       static_cast<int>(pooled[1]),
                       static_cast<int>(sampling_ratio),
                       static_cast<int>(heights.size()),
                       {}};
    for (size_t level = 0; level < heights.size(); ++level) {
      problem.levels[level] = {static_cast<int>(heights[level]), static_cast<int>(widths[level]),
                               static_cast<A>(scales[level])};
    }
    return problem;
  }
};

template <typename T>
Maps<T> pointers(const std::vector<at::Tensor>& maps) {
  Maps<T> result{};
  for (size_t level = 0; level < maps.size(); ++level) result.levels[level] = static_cast<T*>(maps[level].data_ptr());
  return result;
}

at::Tensor roi_align(at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
                     at::IntArrayRef output_size, at::ArrayRef<double> scales, int64_t sampling_ratio) {
  check(features, rois, levels, output_size, scales, sampling_ratio);
  const at::Tensor& finest = features[0];
  std::vector<int64_t> heights, widths;
  for (const at::Tensor& map : features) {
    heights.push_back(map.size(2));
    widths.push_back(map.size(3));
  }
  const Inputs inputs(rois, levels, finest.size(0), finest.size(1), heights, widths, output_size, scales,
                      sampling_ratio);
  const c10::cuda::CUDAGuard guard(finest.device());
  const at::MemoryFormat layout = memory_format_of(finest);
  const at::Tensor output = at::empty({rois.size(0), finest.size(1), output_size[0], output_size[1]},
                                      finest.options().memory_format(layout));
  std::vector<at::Tensor> dense;
  for (const at::Tensor& map : features) dense.push_back(map.contiguous(layout));
  dispatch_floating(finest.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    C10_CUDA_CHECK(forward(inputs.problem<A>(), pointers<const T>(dense), layout == kChannelsLast,
                           static_cast<T*>(output.data_ptr()), c10::cuda::getCurrentCUDAStream()));
  });
  return output;
}

// Channels last, of every level.
std::vector<at::Tensor> allocate_maps(const Inputs& inputs, const at::TensorOptions& options) {
  std::vector<at::Tensor> maps;
  for (size_t level = 0; level < inputs.heights.size(); ++level) {
    maps.push_back(at::empty({inputs.num_images, inputs.channels, inputs.heights[level], inputs.widths[level]},
                             options.memory_format(kChannelsLast)));
  }
  return maps;
}

// Atomic sums come in any order; where torch is told to be deterministic, each pixel gathers its own in a fixed one.
std::vector<at::Tensor> sum_gradients(const Inputs& inputs, const at::Tensor& grad) {
  const bool in_order = at::globalContext().deterministicAlgorithms();
  const at::Tensor dense = grad.contiguous(kChannelsLast);
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto dtype = in_order ? grad.scalar_type() : accumulate_dtype(grad.scalar_type());
  std::vector<at::Tensor> maps = allocate_maps(inputs, grad.options().dtype(dtype));
  dispatch_floating(grad.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem = inputs.problem<A>();
    const T* values = static_cast<const T*>(dense.const_data_ptr());
    if (in_order) {
      const at::Tensor workspace = at::empty({workspace_bytes(problem)}, grad.options().dtype(at::kByte));
      C10_CUDA_CHECK(backward_in_order(problem, values, pointers<T>(maps), workspace.data_ptr(), stream));
    } else {
      for (at::Tensor& map : maps) map.zero_();
      C10_CUDA_CHECK(backward_atomic(problem, values, pointers<A>(maps), stream));
    }
  });
  return maps;
}

std::vector<at::Tensor> roi_align_backward(const at::Tensor& grad, const at::Tensor& rois,
                                           const std::optional<at::Tensor>& levels, c10::SymInt num_images,
                                           c10::SymIntArrayRef heights_sym, c10::SymIntArrayRef widths_sym,
                                           at::ArrayRef<double> scales, int64_t sampling_ratio, bool channels_last) {
  const at::IntArrayRef heights = C10_AS_INTARRAYREF_SLOW(heights_sym), widths = C10_AS_INTARRAYREF_SLOW(widths_sym);
  check_backward(grad, rois, levels, heights, widths, scales);
  const Inputs inputs(rois, levels, num_images.expect_int(), grad.size(1), heights, widths, grad.sizes().slice(2),
                      scales, sampling_ratio);
  const c10::cuda::CUDAGuard guard(grad.device());
  std::vector<at::Tensor> grads = sum_gradients(inputs, grad);
  for (at::Tensor& map : grads) {
    if (channels_last && map.scalar_type() == grad.scalar_type()) continue;
    const auto layout = channels_last ? kChannelsLast : at::MemoryFormat::Contiguous;
    const at::Tensor sums = map;
    map = at::empty(sums.sizes(), grad.options().memory_format(layout));
    map.copy_(sums);
  }
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) {
  m.impl("roi_align", roi_align);
  m.impl("roi_align_backward", roi_align_backward);
}

}  // namespace mrcnn::roi_align::cuda
