// Host side of ROIPool on CUDA devices: checks, memory, stream. It reads no value back: a batch index of an image that
// is not there, which the CPU refuses with an error, gives NaN.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../common/dispatch.h"
#include "roi_pool_checks.h"
#include "roi_pool_cuda.h"

namespace mrcnn::roi_pool::cuda {

namespace {

std::tuple<at::Tensor, at::Tensor> roi_pool(const at::Tensor& features, const at::Tensor& rois,
                                            at::IntArrayRef output_size, double scale) {
  check(features, rois, output_size);
  const c10::cuda::CUDAGuard guard(features.device());
  const at::MemoryFormat layout = memory_format_of(features);
  const std::vector<int64_t> shape{rois.size(0), features.size(1), output_size[0], output_size[1]};
  const at::Tensor output = at::empty(shape, features.options().memory_format(layout));
  const at::Tensor argmax = at::empty(shape, features.options().dtype(at::kInt).memory_format(layout));
  const at::Tensor dense = features.contiguous(layout), dense_rois = rois.contiguous();
  dispatch_floating(features.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem{dense_rois.const_data_ptr<A>(), shape[0], features.size(0), shape[1], features.size(2),
                             features.size(3), shape[2], shape[3], scale, layout == at::MemoryFormat::ChannelsLast};
    C10_CUDA_CHECK(forward(problem, static_cast<const T*>(dense.const_data_ptr()), static_cast<T*>(output.data_ptr()),
                           argmax.data_ptr<int32_t>(), c10::cuda::getCurrentCUDAStream()));
  });
  return {output, argmax};
}

// Atomic sums come in any order; where torch is told to be deterministic, each pixel gathers its own in a fixed one.
at::Tensor roi_pool_backward(const at::Tensor& grad, const at::Tensor& argmax, const at::Tensor& rois,
                             c10::SymInt num_images, c10::SymInt height, c10::SymInt width, double scale,
                             bool channels_last) {
  check_backward(grad, argmax, rois);
  const std::vector<int64_t> shape{num_images.expect_int(), grad.size(1), height.expect_int(), width.expect_int()};
  const c10::cuda::CUDAGuard guard(grad.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto layout = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const bool in_order = at::globalContext().deterministicAlgorithms();
  const auto work_layout = in_order ? at::MemoryFormat::ChannelsLast : layout;
  const at::Tensor dense_grad = grad.contiguous(work_layout), dense_argmax = argmax.contiguous(work_layout);
  const at::Tensor dense_rois = rois.contiguous();
  const auto dtype = in_order ? grad.scalar_type() : accumulate_dtype(grad.scalar_type());
  const at::Tensor sums = at::empty(shape, grad.options().dtype(dtype).memory_format(work_layout));
  if (!in_order) sums.zero_();
  dispatch_floating(grad.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem{dense_rois.const_data_ptr<A>(), grad.size(0), shape[0], shape[1], shape[2], shape[3],
                             grad.size(2), grad.size(3), scale, work_layout == at::MemoryFormat::ChannelsLast};
    const T* values = static_cast<const T*>(dense_grad.const_data_ptr());
    const int32_t* places = dense_argmax.const_data_ptr<int32_t>();
    C10_CUDA_CHECK(in_order
                       ? backward_in_order(problem, values, places, static_cast<T*>(sums.data_ptr()), stream)
                       : backward_atomic(problem, values, places, static_cast<A*>(sums.data_ptr()), stream));
  });
  return sums.to(grad.scalar_type()).contiguous(layout);
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) {
  m.impl("roi_pool", roi_pool);
  m.impl("roi_pool_backward", roi_pool_backward);
}

}  // namespace mrcnn::roi_pool::cuda
