// Host side of ROIPool on the CPU: checks, memory, threads. The schema stands in maskrcnn_benchmark/ops/roi_pool.py.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>

#include "../common/dispatch.h"
#include "roi_pool_checks.h"
#include "roi_pool_cpu.h"

namespace mrcnn::roi_pool {

namespace {

std::tuple<at::Tensor, at::Tensor> roi_pool(const at::Tensor& features, const at::Tensor& rois,
                                            at::IntArrayRef output_size, double scale) {
  check(features, rois, output_size);
  check_images(kOp, rois, features.size(0));
  const at::MemoryFormat layout = memory_format_of(features);
  const std::vector<int64_t> shape{rois.size(0), features.size(1), output_size[0], output_size[1]};
  const at::Tensor output = at::empty(shape, features.options().memory_format(layout));
  const at::Tensor argmax = at::empty(shape, features.options().dtype(at::kInt).memory_format(layout));
  const at::Tensor dense = features.contiguous(at::MemoryFormat::ChannelsLast), dense_rois = rois.contiguous();
  dispatch_floating(features.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem{dense_rois.const_data_ptr<A>(), shape[0], shape[1], features.size(2), features.size(3),
                             shape[2], shape[3], scale};
    at::parallel_for(0, problem.num_rois, 1, [&](int64_t begin, int64_t end) {
      forward(problem, static_cast<const T*>(dense.const_data_ptr()), static_cast<T*>(output.data_ptr()),
              argmax.data_ptr<int32_t>(), layout == at::MemoryFormat::ChannelsLast, begin, end);
    });
  });
  return {output, argmax};
}

// A thread owns channels and walks the rois in their order, so the sums are the same for every number of threads.
at::Tensor roi_pool_backward(const at::Tensor& grad, const at::Tensor& argmax, const at::Tensor& rois,
                             c10::SymInt num_images, c10::SymInt height, c10::SymInt width, double scale,
                             bool channels_last) {
  check_backward(grad, argmax, rois);
  const std::vector<int64_t> shape{num_images.expect_int(), grad.size(1), height.expect_int(), width.expect_int()};
  check_images(kOp, rois, shape[0]);
  const at::Tensor sums = at::zeros(shape, grad.options().dtype(accumulate_dtype(grad.scalar_type())));
  const at::Tensor dense_grad = grad.contiguous(), dense_argmax = argmax.contiguous(), dense_rois = rois.contiguous();
  dispatch_floating(grad.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem{dense_rois.const_data_ptr<A>(), grad.size(0), shape[1], shape[2], shape[3],
                             grad.size(2), grad.size(3), scale};
    at::parallel_for(0, shape[1], 1, [&](int64_t begin, int64_t end) {
      backward(problem, static_cast<const T*>(dense_grad.const_data_ptr()), dense_argmax.const_data_ptr<int32_t>(),
               sums.data_ptr<A>(), begin, end);
    });
  });
  return sums.to(grad.scalar_type())
      .contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("roi_pool", roi_pool);
  m.impl("roi_pool_backward", roi_pool_backward);
}

}  // namespace mrcnn::roi_pool
