// Host side of deformable convolution on the CPU: checks, memory, threads, matrix products. The schema stands in
// maskrcnn_benchmark/ops/deform_conv.py.

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/parallel.h"
#include "deform_conv_cpu.h"
#include "deform_conv_host.h"

namespace mrcnn::deform_conv {

namespace {

constexpr int64_t kTileBytes = 8 << 20;  // of what the taps read; output pixels are done so many at a time
constexpr int64_t kRowsPerItem = 16;     // output pixels
constexpr int64_t kBlock = 128;          // rows and columns of a matrix that one thread computes
constexpr int64_t kScatterChannels = 16;

struct Nothing {};
Nothing no_state() { return {}; }

// The tensors of a call as the kernels read them.
template <typename A>
struct Call {
  at::Tensor input, offset, mask, matrices;  // matrices: [G, O / G, K * C / G] in A
  Problem<A> problem;
  int64_t tile_rows;
  std::vector<Sample<A>> samples;  // of one tile
};

template <typename A>
Call<A> prepare(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                const std::optional<at::Tensor>& mask, const Settings& settings) {
  Call<A> call{channels_inside(input), channels_inside(offset), mask ? channels_inside(*mask) : at::Tensor()};
  call.matrices = matrices_of(weight.to(offset.scalar_type()), settings.groups);
  call.problem = make_problem<A>(call.input, weight, call.offset, call.mask, settings);
  const int64_t row_bytes = call.problem.taps() * call.problem.channels * static_cast<int64_t>(sizeof(A));
  call.tile_rows = std::max(kTileBytes / std::max<int64_t>(row_bytes, 1) / kBlock, int64_t(1)) * kBlock;
  call.tile_rows = std::min(call.tile_rows, call.problem.output_pixels());
  call.samples.resize(call.tile_rows * call.problem.samples());
  return call;
}

// Calls work(first, count) for parts of `rows`, on any thread.
template <typename Work>
void for_each_rows(int64_t rows, const Work& work) {
  for_each_item((rows + kRowsPerItem - 1) / kRowsPerItem, no_state, [&](Nothing&, int64_t item) {
    work(item * kRowsPerItem, std::min(kRowsPerItem, rows - item * kRowsPerItem));
  });
}

// output [G, M, N] = a [G, M, L] b [G, L, N], added to what stands there where `accumulate`. Blocks of a fixed size on
// one thread each, so that the order of the sums does not depend on the number of threads.
void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& output, bool accumulate) {
  const int64_t down = (output.size(1) + kBlock - 1) / kBlock, across = (output.size(2) + kBlock - 1) / kBlock;
  const int64_t items = output.size(0) * down * across;
  const auto part = [](const at::Tensor& tensor, int64_t dim, int64_t index) {
    return tensor.narrow(dim, index * kBlock, std::min(kBlock, tensor.size(dim) - index * kBlock));
  };
  // Two at least: alone, a product would get all threads.
  for_each_item(std::max<int64_t>(items, 2), no_state, [&](Nothing&, int64_t item) {
    if (item >= items) return;
    const int64_t group = item / (down * across), row = item / across % down, column = item % across;
    const at::Tensor left = part(a.select(0, group), 0, row), right = part(b.select(0, group), 1, column);
    at::Tensor block = part(part(output.select(0, group), 0, row), 1, column);
    if (accumulate) {
      at::cpu::addmm_(block, left, right);
    } else {
      at::cpu::mm_out(block, left, right);
    }
  });
}

// [R, G * X] as [G, R, X].
at::Tensor by_group(const at::Tensor& rows, int64_t groups) {
  return rows.view({rows.size(0), groups, rows.size(1) / groups}).transpose(0, 1);
}

template <typename T, typename A>
void read_tile(Call<A>& call, int64_t first, int64_t rows, const at::Tensor& columns) {
  const Problem<A>& problem = call.problem;
  const T* input = static_cast<const T*>(call.input.const_data_ptr());
  A* destination = columns.mutable_data_ptr<A>();
  for_each_rows(rows, [&](int64_t row, int64_t count) {
    Sample<A>* samples = call.samples.data() + row * problem.samples();
    locate(problem, first + row, first + row + count, samples);
    read(problem, samples, input, count, destination + row * columns.size(1));
  });
}

template <typename T, typename A>
at::Tensor run_forward(Call<A> call, int64_t output_channels) {
  const int64_t groups = call.problem.groups, pixels = call.problem.output_pixels();
  const at::Tensor output = at::empty({pixels, output_channels}, call.offset.options());
  const at::Tensor columns = at::empty({call.tile_rows, call.problem.taps() * call.problem.channels}, output.options());
  for (int64_t first = 0; first < pixels; first += call.tile_rows) {
    const int64_t rows = std::min(call.tile_rows, pixels - first);
    read_tile<T>(call, first, rows, columns);
    multiply(by_group(columns.narrow(0, 0, rows), groups), call.matrices.transpose(1, 2),
             by_group(output.narrow(0, first, rows), groups), false);
  }
  return output;
}

at::Tensor deform_conv(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& offset,
                       const std::optional<at::Tensor>& mask, at::IntArrayRef stride, at::IntArrayRef padding,
                       at::IntArrayRef dilation, int64_t groups, int64_t deformable_groups) {
  const Settings settings{stride, padding, dilation, groups, deformable_groups};
  check(input, weight, offset, mask, settings);
  at::Tensor output;
  dispatch_floating(input.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    output = run_forward<T>(prepare<A>(input, weight, offset, mask, settings), weight.size(0));
  });
  return unpack_output(output, input, offset);
}

template <typename T, typename A>
Grads run_backward(Call<A> call, const at::Tensor& grad) {
  const Problem<A>& problem = call.problem;
  const int64_t groups = problem.groups, pixels = problem.output_pixels();
  const at::Tensor columns =
      at::empty({call.tile_rows, problem.taps() * problem.channels}, call.offset.options());
  const at::Tensor columns_grad = at::empty_like(columns);
  const Grads grads{at::zeros({problem.num_images, problem.height, problem.width, problem.channels}, columns.options()),
                    at::zeros(call.matrices.sizes(), columns.options()),
                    at::empty({pixels, problem.samples(), 3}, columns.options())};
  const T* input = static_cast<const T*>(call.input.const_data_ptr());
  const auto blocks = channel_blocks(problem.channels, groups, problem.deformable_groups, kScatterChannels);
  for (int64_t first = 0; first < pixels; first += call.tile_rows) {
    const int64_t rows = std::min(call.tile_rows, pixels - first);
    const at::Tensor grad_by_group = by_group(grad.narrow(0, first, rows), groups);
    read_tile<T>(call, first, rows, columns);
    multiply(grad_by_group.transpose(1, 2), by_group(columns.narrow(0, 0, rows), groups), grads.matrices, true);
    multiply(grad_by_group, call.matrices, by_group(columns_grad.narrow(0, 0, rows), groups), false);
    const A* source = columns_grad.const_data_ptr<A>();
    auto* sample_grads = reinterpret_cast<SampleGrad<A>*>(grads.samples.mutable_data_ptr<A>());
    for_each_rows(rows, [&](int64_t row, int64_t count) {
      const Sample<A>* samples = call.samples.data() + row * problem.samples();
      read_backward(problem, samples, input, source + row * columns.size(1), count,
                    sample_grads + (first + row) * problem.samples());
    });
    A* sums = grads.input.mutable_data_ptr<A>();  // a thread owns channels and walks the output pixels in their order
    for_each_item(static_cast<int64_t>(blocks.size()), no_state, [&](Nothing&, int64_t block) {
      scatter(problem, call.samples.data(), source, rows, blocks[block], sums);
    });
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
  const at::Tensor rows = rows_of(grad.to(offset.scalar_type()));
  Grads grads;
  dispatch_floating(input.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    grads = run_backward<T>(prepare<A>(input, weight, offset, mask, settings), rows);
  });
  return unpack_grads(grads, input, weight, offset, mask);
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("deform_conv", deform_conv);
  m.impl("deform_conv_backward", deform_conv_backward);
}

}  // namespace mrcnn::deform_conv
