// Host side of deformable convolution on CUDA devices: checks, memory, stream, matrix products. It reads no value back.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "deform_conv_cuda.h"
#include "deform_conv_host.h"

namespace mrcnn::deform_conv::cuda {

namespace {

constexpr int64_t kColumnBytes = 256 << 20;  // output pixels are done so many at a time

// The tensors of a call as the kernels read them.
template <typename A>
struct Call {
  at::Tensor input, offset, mask, matrices;  // matrices: [G, O / G, K * C / G]
  Problem<A> problem;
  int64_t most_rows;

  // The output pixels from `first` on.
  Rows rows(int64_t first) const { return {first, std::min(most_rows, problem.output_pixels() - first)}; }

  at::Tensor make_columns(Rows rows) const {
    const int64_t width = problem.taps() * problem.group_channels();
    return at::empty({problem.groups, rows.count, width}, input.options().memory_format(at::MemoryFormat::Contiguous));
  }
};

template <typename A>
Call<A> prepare(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                const std::optional<at::Tensor>& mask, const Settings& settings) {
  Call<A> call{channels_inside(input), channels_inside(offset), mask ? channels_inside(*mask) : at::Tensor(),
               matrices_of(weight, settings.groups)};
  call.problem = make_problem<A>(call.input, weight, call.offset, call.mask, settings);
  const int64_t row_bytes = call.problem.taps() * input.size(1) * static_cast<int64_t>(input.element_size());
  call.most_rows = std::max(kColumnBytes / std::max<int64_t>(row_bytes, 1), int64_t(1));
  return call;
}

// Rows [R, G * X] as [G, R, X].
at::Tensor by_group(const at::Tensor& rows, int64_t groups) {
  return rows.view({rows.size(0), groups, rows.size(1) / groups}).transpose(0, 1);
}

template <typename T>
const T* pointer(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T, typename A>
at::Tensor run_forward(const Call<A>& call, int64_t output_channels, cudaStream_t stream) {
  const int64_t groups = call.problem.groups, pixels = call.problem.output_pixels();
  const at::Tensor output = at::empty({pixels, output_channels}, call.matrices.options());
  for (int64_t first = 0; first < pixels; first += call.most_rows) {
    const Rows rows = call.rows(first);
    const at::Tensor columns = call.make_columns(rows);
    C10_CUDA_CHECK(read(call.problem, rows, pointer<T>(call.input), static_cast<T*>(columns.data_ptr()), stream));
    by_group(output.narrow(0, first, rows.count), groups).copy_(at::bmm(columns, call.matrices.transpose(1, 2)));
  }
  return output;
}

at::Tensor deform_conv(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                       const std::optional<at::Tensor>& mask, at::IntArrayRef stride, at::IntArrayRef padding,
                       at::IntArrayRef dilation, int64_t groups, int64_t deformable_groups) {
  const Settings settings{stride, padding, dilation, groups, deformable_groups};
  check(input, weight, offset, mask, settings);
  const c10::cuda::CUDAGuard guard(input.device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);  // it would round the factors
  at::Tensor output;
  dispatch_floating(input.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto call = prepare<A>(input, weight, offset, mask, settings);
    output = run_forward<T>(call, weight.size(0), c10::cuda::getCurrentCUDAStream());
  });
  return unpack_output(output, input, offset);
}

// Atomic sums come in any order; where torch is told to be deterministic, the corners of the samples are sorted by the
// pixel that they add to.
template <typename T, typename A>
void add_to_input(const Call<A>& call, Rows rows, const T* columns_grad, const at::Tensor& sums, cudaStream_t stream) {
  A* values = static_cast<A*>(sums.data_ptr());
  if (!at::globalContext().deterministicAlgorithms()) {
    C10_CUDA_CHECK(scatter(call.problem, rows, columns_grad, values, stream));
    return;
  }
  const auto options = sums.options().dtype(at::kLong);
  const at::Tensor keys = at::empty({rows.count * call.problem.samples() * 4}, options);
  C10_CUDA_CHECK(write_keys(call.problem, rows, keys.data_ptr<int64_t>(), stream));
  const auto [sorted, order] = at::sort(keys, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const int64_t num_keys = call.problem.deformable_groups * sums.size(0) * sums.size(1) * sums.size(2);
  const at::Tensor begins = at::searchsorted(sorted, at::arange(num_keys + 1, options));
  C10_CUDA_CHECK(scatter_in_order(call.problem, rows, columns_grad, order.const_data_ptr<int64_t>(),
                                  begins.const_data_ptr<int64_t>(), values, stream));
}

template <typename T, typename A>
Grads run_backward(const Call<A>& call, const at::Tensor& grad, cudaStream_t stream) {
  const Problem<A>& problem = call.problem;
  const int64_t pixels = problem.output_pixels();
  const auto options = call.offset.options().memory_format(at::MemoryFormat::Contiguous);
  const Grads grads{at::zeros({problem.num_images, problem.height, problem.width, problem.channels}, options),
                    at::zeros(call.matrices.sizes(), options), at::empty({pixels, problem.samples(), 3}, options)};
  auto* sample_grads = reinterpret_cast<SampleGrad<A>*>(grads.samples.data_ptr());
  const T* input = pointer<T>(call.input);
  for (int64_t first = 0; first < pixels; first += call.most_rows) {
    const Rows rows = call.rows(first);
    const at::Tensor grad_by_group = by_group(grad.narrow(0, first, rows.count), problem.groups);
    const at::Tensor columns = call.make_columns(rows);
    C10_CUDA_CHECK(read(problem, rows, input, static_cast<T*>(columns.data_ptr()), stream));
    grads.matrices.add_(at::bmm(grad_by_group.transpose(1, 2), columns));
    const at::Tensor columns_grad = at::bmm(grad_by_group, call.matrices).contiguous();
    C10_CUDA_CHECK(read_backward(problem, rows, input, pointer<T>(columns_grad), sample_grads, stream));
    add_to_input(call, rows, pointer<T>(columns_grad), grads.input, stream);
  }
  return grads;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> deform_conv_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
    const std::optional<at::Tensor>& mask, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
    int64_t groups, int64_t deformable_groups) {
  const Settings settings{stride, padding, dilation, groups, deformable_groups};
  check(input, weight, offset, mask, settings);
  check_grad(grad, input, weight, offset);
  const c10::cuda::CUDAGuard guard(input.device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);  // it would round the factors
  const at::Tensor rows = rows_of(grad);
  Grads grads;
  dispatch_floating(input.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const auto call = prepare<A>(input, weight, offset, mask, settings);
    grads = run_backward<T>(call, rows, c10::cuda::getCurrentCUDAStream());
  });
  return unpack_grads(grads, input, weight, offset, mask);
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CUDA, m) {
  m.impl("deform_conv", deform_conv);
  m.impl("deform_conv_backward", deform_conv_backward);
}

}  // namespace mrcnn::deform_conv::cuda
