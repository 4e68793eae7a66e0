// Host side of mrcnn::sigmoid_focal_loss on CPUs: checks, memory, threads.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <vector>

#include "sigmoid_focal_loss_checks.h"
#include "sigmoid_focal_loss_cpu.h"

namespace mrcnn::sigmoid_focal_loss {

namespace {

constexpr int64_t kGrain = 8;  // chunks of a thread

template <typename T>
Problem<T> make_problem(const at::Tensor& logits, const at::Tensor& targets, double gamma, double alpha) {
  return {static_cast<const T*>(logits.const_data_ptr()), targets.const_data_ptr<int64_t>(), logits.size(0),
          logits.size(1), gamma, alpha};
}

// The sums of the chunks are added in their order, so the result is the same for every number of threads.
at::Tensor sigmoid_focal_loss(const at::Tensor& logits, const at::Tensor& targets, double gamma, double alpha) {
  check(logits, targets, gamma);
  const at::Tensor dense = logits.contiguous(), dense_targets = targets.contiguous();
  const at::Tensor output = at::empty({}, logits.options().dtype(accumulate_dtype(logits.scalar_type())));
  dispatch_floating(logits.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Problem<T> problem = make_problem<T>(dense, dense_targets, gamma, alpha);
    std::vector<double> sums(problem.num_chunks());
    at::parallel_for(0, problem.num_chunks(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) sums[chunk] = sum_chunk(problem, chunk);
    });
    double total = 0;
    for (double sum : sums) total += sum;
    using A = typename Accumulate<T>::type;
    *output.mutable_data_ptr<A>() = static_cast<A>(total);
  });
  return output;
}

at::Tensor sigmoid_focal_loss_backward(const at::Tensor& grad, const at::Tensor& logits, const at::Tensor& targets,
                                       double gamma, double alpha) {
  check_backward(grad, logits, targets, gamma);
  const at::Tensor dense = logits.contiguous(), dense_targets = targets.contiguous();
  const at::Tensor gradient = at::empty(logits.sizes(), logits.options());
  dispatch_floating(logits.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<T> problem = make_problem<T>(dense, dense_targets, gamma, alpha);
    const double scale = static_cast<double>(*grad.const_data_ptr<A>());
    T* values = static_cast<T*>(gradient.mutable_data_ptr());
    at::parallel_for(0, problem.num_chunks(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) differentiate_chunk(problem, chunk, scale, values);
    });
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss);
  m.impl("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward);
}

}  // namespace mrcnn::sigmoid_focal_loss
