// Host side of mrcnn::sigmoid_focal_loss on CUDA devices: checks, memory, stream. It never waits for the device.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "sigmoid_focal_loss_checks.h"
#include "sigmoid_focal_loss_cuda.h"

namespace mrcnn::sigmoid_focal_loss::cuda {

namespace {

// Dense, and from an address where vectors can be read: a view may start anywhere.
at::Tensor dense_logits(const at::Tensor& logits) {
  const at::Tensor dense = logits.contiguous();
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense : dense.clone();
}

template <typename T>
Problem<T> make_problem(const at::Tensor& logits, const at::Tensor& targets, double gamma, double alpha) {
  return {static_cast<const T*>(logits.const_data_ptr()), targets.const_data_ptr<int64_t>(), logits.size(0),
          logits.size(1), gamma, alpha};
}

at::Tensor sigmoid_focal_loss(const at::Tensor& logits, const at::Tensor& targets, double gamma, double alpha) {
  check(logits, targets, gamma);
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor dense = dense_logits(logits), dense_targets = targets.contiguous();
  const at::Tensor output = at::empty({}, logits.options().dtype(accumulate_dtype(logits.scalar_type())));
  dispatch_floating(logits.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Problem<T> problem = make_problem<T>(dense, dense_targets, gamma, alpha);
    const at::Tensor sums = at::empty({problem.num_chunks()}, logits.options().dtype(at::kDouble));
    C10_CUDA_CHECK(forward(problem, sums.mutable_data_ptr<double>(),
                           output.mutable_data_ptr<typename Accumulate<T>::type>(),
                           c10::cuda::getCurrentCUDAStream()));
  });
  return output;
}

at::Tensor sigmoid_focal_loss_backward(const at::Tensor& grad, const at::Tensor& logits, const at::Tensor& targets,
                                       double gamma, double alpha) {
  check_backward(grad, logits, targets, gamma);
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor dense = dense_logits(logits), dense_targets = targets.contiguous();
  const at::Tensor gradient = at::empty(logits.sizes(), logits.options());
  dispatch_floating(logits.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    C10_CUDA_CHECK(backward(make_problem<T>(dense, dense_targets, gamma, alpha),
                            grad.const_data_ptr<typename Accumulate<T>::type>(),
                            static_cast<T*>(gradient.mutable_data_ptr()), c10::cuda::getCurrentCUDAStream()));
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss);
  m.impl("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward);
}

}  // namespace mrcnn::sigmoid_focal_loss::cuda
