// Host side of ROIAlign on the CPU: checks, memory, threads. The schema stands in maskrcnn_benchmark/ops/roi_align.py.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <type_traits>

#include "../common/dispatch.h"
#include "roi_align_checks.h"
#include "roi_align_cpu.h"

namespace mrcnn::roi_align {

namespace {

constexpr int64_t kBlocksPerTask = 64;
constexpr int64_t kRoisPerTask = 4;

at::MemoryFormat memory_format(bool channels_last) {
  return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

Layout layout_of(int64_t channels, int64_t pixels, bool channels_last) {
  return channels_last ? Layout{channels * pixels, 1, channels} : Layout{channels * pixels, pixels, 1};
}

// Looks at the values, which bound every read.
void check_values(const at::Tensor& rois, const std::optional<at::Tensor>& levels, int64_t num_images,
                  size_t num_levels) {
  check_images(kOp, rois, num_images);
  if (!levels) return;
  const at::Tensor dense = levels->contiguous();
  for (int64_t roi = 0; roi < rois.size(0); ++roi) {
    const int64_t level = dense.const_data_ptr<int64_t>()[roi];
    TORCH_CHECK_VALUE(level >= 0 && level < static_cast<int64_t>(num_levels), kOp, ": roi ", roi,
                      " is assigned to level ", level, ", but there are ", num_levels, " feature maps");
  }
}

template <typename A>
Problem<A> make_problem(const at::Tensor& rois, at::ArrayRef<double> scales, int64_t num_images, int64_t channels,
                        at::IntArrayRef heights, at::IntArrayRef widths, at::IntArrayRef pooled,
                        int64_t sampling_ratio) {
  Problem<A> problem{rois.const_data_ptr<A>(), {}, num_images, channels, pooled[0], pooled[1], sampling_ratio};
  for (size_t i = 0; i < heights.size(); ++i) add_level(problem.levels, heights[i], widths[i], scales[i]);
  return problem;
}

// First entry of each image, and the end.
std::vector<const Entry*> split_by_image(const std::vector<Entry>& entries, int64_t num_images) {
  std::vector<const Entry*> begins;
  const Entry* at = entries.data();
  for (int64_t image = 0; image <= num_images; ++image) {
    while (at != entries.data() + entries.size() && at->image < image) ++at;
    begins.push_back(at);
  }
  return begins;
}

template <typename A>
Tile<A> scratch_tile(const Problem<A>& problem, A* scratch, int64_t first_channel, int64_t width) {
  Tile<A> tile{{}, width, first_channel, std::min(width, problem.channels - first_channel)};
  for (const Level& level : problem.levels) tile.levels.push_back(scratch + level.first_block * kBlock * width);
  return tile;
}

template <typename A>
Tile<A> tile_in_place(const Problem<A>& problem, const std::vector<A*>& maps, const std::vector<Layout>& layouts,
                      int64_t image, int64_t first_channel, int64_t width) {
  Tile<A> tile{{}, problem.channels, first_channel, std::min(width, problem.channels - first_channel)};
  for (size_t i = 0; i < maps.size(); ++i) tile.levels.push_back(maps[i] + image * layouts[i].image + first_channel);
  return tile;
}

template <typename P>
std::vector<P> of_image(std::vector<P> maps, const std::vector<Layout>& layouts, int64_t image) {
  for (size_t i = 0; i < maps.size(); ++i) maps[i] += image * layouts[i].image;
  return maps;
}

template <typename T, typename A = typename Accumulate<T>::type>
void run_forward(const Problem<A>& problem, const std::vector<const T*>& maps, const std::vector<Layout>& layouts,
                 const std::vector<Entry>& entries, T* output, Layout output_layout) {
  const std::vector<const Entry*> begins = split_by_image(entries, problem.num_images);
  // Values that already lie as the kernel reads them need no scratch.
  if constexpr (std::is_same_v<T, A>) {
    if (layouts[0].channel == 1) {
      std::vector<A*> planes;
      for (const T* map : maps) planes.push_back(const_cast<A*>(map));
      for (int64_t image = 0; image < problem.num_images; ++image) {
        const Entry* first = begins[image];
        at::parallel_for(0, begins[image + 1] - first, kRoisPerTask, [&](int64_t begin, int64_t end) {
          for (int64_t channel = 0; channel < problem.channels; channel += kTile) {
            const Tile<A> tile = tile_in_place(problem, planes, layouts, image, channel, kTile);
            forward(problem, tile, first + begin, first + end, output, output_layout);
          }
        });
      }
      return;
    }
  }
  const int64_t width = std::min(kTile, problem.channels);
  const std::unique_ptr<A[]> scratch(new A[problem.blocks() * kBlock * width]);
  for (int64_t image = 0; image < problem.num_images; ++image) {
    const Entry* first = begins[image];
    const int64_t num_rois = begins[image + 1] - first;
    if (num_rois == 0) continue;
    std::vector<uint8_t> touched(problem.blocks(), 0);
    mark_blocks(problem, first, first + num_rois, touched.data());
    const std::vector<const T*> planes = of_image(maps, layouts, image);
    for (int64_t channel = 0; channel < problem.channels; channel += width) {
      const Tile<A> tile = scratch_tile(problem, scratch.get(), channel, width);
      at::parallel_for(0, problem.blocks(), kBlocksPerTask, [&](int64_t begin, int64_t end) {
        pack(problem, planes, layouts.data(), touched.data(), tile, begin, end);
      });
      at::parallel_for(0, num_rois, kRoisPerTask, [&](int64_t begin, int64_t end) {
        forward(problem, tile, first + begin, first + end, output, output_layout);
      });
    }
  }
}

// One task is a tile of channels of one image: it alone writes there and walks the rois in their order, so the sums are
// the same for every number of threads.
template <typename T, typename A = typename Accumulate<T>::type>
void run_backward(const Problem<A>& problem, const T* grad, Layout grad_layout, const std::vector<Entry>& entries,
                  const std::vector<T*>& maps, const std::vector<Layout>& layouts) {
  const std::vector<const Entry*> begins = split_by_image(entries, problem.num_images);
  std::vector<std::vector<uint8_t>> touched;
  for (int64_t image = 0; image < problem.num_images; ++image) {
    touched.emplace_back(problem.blocks(), 0);
    mark_blocks(problem, begins[image], begins[image + 1], touched.back().data());
  }
  int64_t width = std::min(kTile, problem.channels);
  const auto tiles_of = [&](int64_t tile_width) { return (problem.channels + tile_width - 1) / tile_width; };
  while (width > 16 && tiles_of(width) * problem.num_images < at::get_num_threads()) width /= 2;
  const bool in_place = std::is_same_v<T, A> && layouts[0].channel == 1;
  at::parallel_for(0, tiles_of(width) * problem.num_images, 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<A[]> scratch(in_place ? nullptr : new A[problem.blocks() * kBlock * width]);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task % problem.num_images, channel = task / problem.num_images * width;
      const uint8_t* marks = touched[image].data();
      if constexpr (std::is_same_v<T, A>) {
        if (in_place) {
          const Tile<A> tile = tile_in_place(problem, maps, layouts, image, channel, width);
          clear<A>(problem, nullptr, tile, 0, problem.blocks());
          backward(problem, grad, grad_layout, begins[image], begins[image + 1], tile);
          continue;
        }
      }
      const Tile<A> tile = scratch_tile(problem, scratch.get(), channel, width);
      clear(problem, marks, tile, 0, problem.blocks());
      backward(problem, grad, grad_layout, begins[image], begins[image + 1], tile);
      unpack(problem, of_image(maps, layouts, image), layouts.data(), marks, tile, 0, problem.blocks());
    }
  });
}

at::Tensor roi_align(at::TensorList features, const at::Tensor& rois, const std::optional<at::Tensor>& levels,
                     at::IntArrayRef output_size, at::ArrayRef<double> scales, int64_t sampling_ratio) {
  check(features, rois, levels, output_size, scales, sampling_ratio);
  const at::Tensor& finest = features[0];
  check_values(rois, levels, finest.size(0), features.size());
  std::vector<int64_t> heights, widths;
  for (const at::Tensor& map : features) {
    heights.push_back(map.size(2));
    widths.push_back(map.size(3));
  }
  const bool channels_last = memory_format_of(finest) == at::MemoryFormat::ChannelsLast;
  const int64_t num_rois = rois.size(0), channels = finest.size(1), bins = output_size[0] * output_size[1];
  const at::Tensor dense_rois = rois.contiguous();
  const at::Tensor dense_levels = levels ? levels->contiguous() : at::Tensor();
  at::Tensor output;
  dispatch_floating(finest.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem = make_problem<A>(dense_rois, scales, finest.size(0), channels, heights, widths,
                                               output_size, sampling_ratio);
    const std::vector<Entry> entries =
        order_rois(problem, levels ? dense_levels.const_data_ptr<int64_t>() : nullptr, num_rois);
    output = at::empty({num_rois, channels, output_size[0], output_size[1]},
                       finest.options().memory_format(memory_format(channels_last)));
    if (static_cast<int64_t>(entries.size()) < num_rois) output.zero_();  // empty slots
    if (entries.empty() || channels == 0) return;
    std::vector<at::Tensor> dense;
    std::vector<const T*> maps;
    std::vector<Layout> layouts;
    for (size_t i = 0; i < features.size(); ++i) {
      dense.push_back(features[i].contiguous(memory_format(channels_last)));
      maps.push_back(static_cast<const T*>(dense.back().const_data_ptr()));
      layouts.push_back(layout_of(channels, heights[i] * widths[i], channels_last));
    }
    run_forward<T>(problem, maps, layouts, entries, static_cast<T*>(output.data_ptr()),
                   layout_of(channels, bins, channels_last));
  });
  return output;
}

std::vector<at::Tensor> roi_align_backward(const at::Tensor& grad, const at::Tensor& rois,
                                           const std::optional<at::Tensor>& levels, c10::SymInt num_images_sym,
                                           c10::SymIntArrayRef heights_sym, c10::SymIntArrayRef widths_sym,
                                           at::ArrayRef<double> scales, int64_t sampling_ratio, bool channels_last) {
  const int64_t num_images = num_images_sym.expect_int();
  const at::IntArrayRef heights = C10_AS_INTARRAYREF_SLOW(heights_sym), widths = C10_AS_INTARRAYREF_SLOW(widths_sym);
  check_backward(grad, rois, levels, heights, widths, scales);
  check_values(rois, levels, num_images, heights.size());
  const int64_t channels = grad.size(1), bins = grad.size(2) * grad.size(3);
  std::vector<at::Tensor> grads;
  for (size_t i = 0; i < heights.size(); ++i)
    grads.push_back(at::empty({num_images, channels, heights[i], widths[i]},
                              grad.options().memory_format(memory_format(channels_last))));
  if (num_images == 0 || channels == 0) return grads;
  const bool grad_channels_last = memory_format_of(grad) == at::MemoryFormat::ChannelsLast;
  const at::Tensor dense_grad = grad.contiguous(memory_format(grad_channels_last));
  const at::Tensor dense_rois = rois.contiguous();
  const at::Tensor dense_levels = levels ? levels->contiguous() : at::Tensor();
  dispatch_floating(grad.scalar_type(), kOp, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = typename Accumulate<T>::type;
    const Problem<A> problem = make_problem<A>(dense_rois, scales, num_images, channels, heights, widths,
                                               grad.sizes().slice(2), sampling_ratio);
    const std::vector<Entry> entries =
        order_rois(problem, levels ? dense_levels.const_data_ptr<int64_t>() : nullptr, rois.size(0));
    std::vector<T*> maps;
    std::vector<Layout> layouts;
    for (size_t i = 0; i < grads.size(); ++i) {
      maps.push_back(static_cast<T*>(grads[i].data_ptr()));
      layouts.push_back(layout_of(channels, heights[i] * widths[i], channels_last));
    }
    run_backward<T>(problem, static_cast<const T*>(dense_grad.const_data_ptr()),
                    layout_of(channels, bins, grad_channels_last), entries, maps, layouts);
  });
  return grads;
}

}  // namespace

TORCH_LIBRARY_IMPL(mrcnn, CPU, m) {
  m.impl("roi_align", roi_align);
  m.impl("roi_align_backward", roi_align_backward);
}

}  // namespace mrcnn::roi_align
