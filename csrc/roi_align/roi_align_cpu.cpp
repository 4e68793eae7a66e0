#include "roi_align_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../common/simd.h"
#include "../common/transpose.h"

namespace mrcnn::roi_align {

namespace {

constexpr int64_t kBlocksOfRun = 8;  // blocks that are copied in one piece at most
constexpr double kMaxGrid = 1 << 20;  // keeps the conversion to an integer defined for absurdly large boxes

// Where a roi lies on its level, as the published ROIAlign without half-pixel shift has it: sides of at least 1.
template <typename A>
struct Geometry {
  A start_y, start_x, bin_height, bin_width;
  int64_t grid_height, grid_width;
};

template <typename A>
MRCNN_INLINE int64_t grid_size(int64_t sampling_ratio, A size, int64_t bins) {
  if (sampling_ratio > 0) return sampling_ratio;
  const double grid = std::ceil(size / static_cast<A>(bins));
  return static_cast<int64_t>(grid < kMaxGrid ? grid : kMaxGrid);
}

template <typename A>
MRCNN_INLINE Geometry<A> locate(const Problem<A>& problem, const Entry& entry) {
  const A* roi = problem.rois + entry.roi * 5;
  const A scale = static_cast<A>(problem.levels[entry.level].scale);
  const A start_x = roi[1] * scale, start_y = roi[2] * scale;
  const A width = std::max(roi[3] * scale - start_x, A(1)), height = std::max(roi[4] * scale - start_y, A(1));
  return {start_y,
          start_x,
          height / static_cast<A>(problem.pooled_height),
          width / static_cast<A>(problem.pooled_width),
          grid_size(problem.sampling_ratio, height, problem.pooled_height),
          grid_size(problem.sampling_ratio, width, problem.pooled_width)};
}

// One sample along one axis: the two pixels it lies between and their weights. low < 0: it lies outside and counts 0.
template <typename A>
struct Sample {
  int64_t low, high;
  A low_weight, high_weight;
};

template <typename A>
MRCNN_INLINE void sample_axis(A start, A bin_size, int64_t bins, int64_t grid, int64_t extent,
                              std::vector<Sample<A>>& samples) {
  samples.resize(bins * grid);
  for (int64_t bin = 0; bin < bins; ++bin) {
    for (int64_t step = 0; step < grid; ++step) {
      A position = start + static_cast<A>(bin) * bin_size +
                   (static_cast<A>(step) + A(0.5)) * bin_size / static_cast<A>(grid);
      Sample<A>& sample = samples[bin * grid + step];
      // Written so that NaN counts as outside.
      if (!(position >= A(-1) && position <= static_cast<A>(extent))) {
        sample = {-1, -1, A(0), A(0)};
        continue;
      }
      position = std::max(position, A(0));
      const int64_t low = std::min(static_cast<int64_t>(position), extent - 1);
      const A high_weight = low == extent - 1 ? A(0) : position - static_cast<A>(low);
      sample = {low, std::min(low + 1, extent - 1), A(1) - high_weight, high_weight};
    }
  }
}

// The average of the samples of one bin, for `channels` channels, of which there are W if W > 0.
template <typename A, int64_t W>
MRCNN_INLINE void pool_bin(const A* plane, int64_t pixel_stride, int64_t row_stride, const Sample<A>* ys, int64_t grid_y,
                           const Sample<A>* xs, int64_t grid_x, int64_t channels, A* MRCNN_RESTRICT out) {
  const int64_t width = W > 0 ? W : channels;
  A sum[W > 0 ? W : kTile] = {};
  for (int64_t iy = 0; iy < grid_y; ++iy) {
    const Sample<A> y = ys[iy];
    if (y.low < 0) continue;
    for (int64_t ix = 0; ix < grid_x; ++ix) {
      const Sample<A> x = xs[ix];
      if (x.low < 0) continue;
      const A w1 = y.low_weight * x.low_weight, w2 = y.low_weight * x.high_weight;
      const A w3 = y.high_weight * x.low_weight, w4 = y.high_weight * x.high_weight;
      const A* MRCNN_RESTRICT v1 = plane + y.low * row_stride + x.low * pixel_stride;
      const A* MRCNN_RESTRICT v2 = plane + y.low * row_stride + x.high * pixel_stride;
      const A* MRCNN_RESTRICT v3 = plane + y.high * row_stride + x.low * pixel_stride;
      const A* MRCNN_RESTRICT v4 = plane + y.high * row_stride + x.high * pixel_stride;
      for (int64_t c = 0; c < width; ++c) sum[c] += w1 * v1[c] + w2 * v2[c] + w3 * v3[c] + w4 * v4[c];
    }
  }
  const A count = static_cast<A>(std::max<int64_t>(grid_y * grid_x, 1));
  for (int64_t c = 0; c < width; ++c) out[c] = sum[c] / count;
}

template <typename T, int64_t W, typename A>
MRCNN_INLINE void forward_width(const Problem<A>& problem, const Tile<A>& tile, const Entry* begin, const Entry* end,
                                T* output, Layout layout) {
  const int64_t bins = problem.bins();
  std::vector<A> pooled(bins * kTile);
  std::vector<Sample<A>> ys, xs;
  for (const Entry* entry = begin; entry != end; ++entry) {
    const Level& level = problem.levels[entry->level];
    const Geometry<A> at = locate(problem, *entry);
    sample_axis(at.start_y, at.bin_height, problem.pooled_height, at.grid_height, level.height, ys);
    sample_axis(at.start_x, at.bin_width, problem.pooled_width, at.grid_width, level.width, xs);
    for (int64_t bin = 0; bin < bins; ++bin) {
      const int64_t py = bin / problem.pooled_width, px = bin % problem.pooled_width;
      pool_bin<A, W>(tile.levels[entry->level], tile.pixel_stride, level.width * tile.pixel_stride,
                     ys.data() + py * at.grid_height, at.grid_height, xs.data() + px * at.grid_width, at.grid_width,
                     tile.channels, pooled.data() + bin * kTile);
    }
    T* out = output + entry->roi * layout.image + tile.first_channel * layout.channel;
    if (layout.channel == 1) {
      for (int64_t bin = 0; bin < bins; ++bin)
        for (int64_t c = 0; c < tile.channels; ++c) store(pooled[bin * kTile + c], out + bin * layout.pixel + c);
    } else {
      transpose(pooled.data(), kTile, bins, tile.channels, out, layout.channel);
    }
  }
}

template <typename T, typename A>
MRCNN_INLINE void forward_any(const Problem<A>& problem, const Tile<A>& tile, const Entry* begin, const Entry* end,
                              T* output, Layout layout) {
  if (tile.channels == kTile) {
    forward_width<T, kTile>(problem, tile, begin, end, output, layout);
  } else {
    forward_width<T, 0>(problem, tile, begin, end, output, layout);
  }
}

// The weights with which the bins of one axis read each pixel. Bilinear weights are products of one factor per axis, so
// the sum over all samples of a bin is one too: the gradient spreads along y first, then along x, and each pixel of the
// roi is touched once instead of once per sample and corner.
template <typename A>
struct AxisWeights {
  int64_t first = 0;       // first pixel
  int64_t num_pixels = 0;  // 0: the roi lies outside
  std::vector<A> weights;  // [num_pixels, bins]
  std::vector<int64_t> begin, end;  // [num_pixels] bins with a weight: [begin, end)
};

template <typename A>
MRCNN_INLINE void weigh_axis(const std::vector<Sample<A>>& samples, int64_t bins, int64_t grid, AxisWeights<A>& axis) {
  int64_t first = INT64_MAX, last = -1;
  for (const Sample<A>& sample : samples) {
    if (sample.low < 0) continue;
    first = std::min(first, sample.low);
    last = std::max(last, sample.high);
  }
  axis.first = first;
  axis.num_pixels = last < 0 ? 0 : last - first + 1;
  axis.weights.assign(axis.num_pixels * bins, A(0));
  axis.begin.assign(axis.num_pixels, bins);
  axis.end.assign(axis.num_pixels, 0);
  for (int64_t bin = 0; bin < bins; ++bin) {
    for (int64_t step = 0; step < grid; ++step) {
      const Sample<A>& sample = samples[bin * grid + step];
      if (sample.low < 0) continue;
      const int64_t low = sample.low - first, high = sample.high - first;
      axis.weights[low * bins + bin] += sample.low_weight;
      axis.weights[high * bins + bin] += sample.high_weight;
      for (const int64_t pixel : {low, high}) {
        axis.begin[pixel] = std::min(axis.begin[pixel], bin);
        axis.end[pixel] = std::max(axis.end[pixel], bin + 1);
      }
    }
  }
}

template <typename A, int64_t W>
MRCNN_INLINE void spread_roi(const AxisWeights<A>& ys, const AxisWeights<A>& xs, int64_t pooled_height,
                             int64_t pooled_width, const A* grads, int64_t channels, A* MRCNN_RESTRICT row_grads,
                             A* plane, int64_t pixel_stride, int64_t row_stride) {
  const int64_t width = W > 0 ? W : channels;
  for (int64_t y = 0; y < ys.num_pixels; ++y) {
    if (ys.begin[y] >= ys.end[y]) continue;
    for (int64_t px = 0; px < pooled_width; ++px) {
      A sum[W > 0 ? W : kTile] = {};
      for (int64_t py = ys.begin[y]; py < ys.end[y]; ++py) {
        const A weight = ys.weights[y * pooled_height + py];
        const A* MRCNN_RESTRICT grad = grads + (py * pooled_width + px) * kTile;
        for (int64_t c = 0; c < width; ++c) sum[c] += weight * grad[c];
      }
      for (int64_t c = 0; c < width; ++c) row_grads[px * kTile + c] = sum[c];
    }
    A* row = plane + (ys.first + y) * row_stride + xs.first * pixel_stride;
    for (int64_t x = 0; x < xs.num_pixels; ++x) {
      if (xs.begin[x] >= xs.end[x]) continue;
      A sum[W > 0 ? W : kTile] = {};
      for (int64_t px = xs.begin[x]; px < xs.end[x]; ++px) {
        const A weight = xs.weights[x * pooled_width + px];
        for (int64_t c = 0; c < width; ++c) sum[c] += weight * row_grads[px * kTile + c];
      }
      A* MRCNN_RESTRICT pixel = row + x * pixel_stride;
      for (int64_t c = 0; c < width; ++c) pixel[c] += sum[c];
    }
  }
}

template <typename T, int64_t W, typename A>
MRCNN_INLINE void backward_width(const Problem<A>& problem, const T* grad, Layout layout, const Entry* begin,
                                 const Entry* end, const Tile<A>& tile) {
  const int64_t bins = problem.bins();
  std::vector<A> grads(bins * kTile), row_grads(problem.pooled_width * kTile);
  std::vector<Sample<A>> samples;
  AxisWeights<A> ys, xs;
  for (const Entry* entry = begin; entry != end; ++entry) {
    const Level& level = problem.levels[entry->level];
    const Geometry<A> at = locate(problem, *entry);
    sample_axis(at.start_y, at.bin_height, problem.pooled_height, at.grid_height, level.height, samples);
    weigh_axis(samples, problem.pooled_height, at.grid_height, ys);
    sample_axis(at.start_x, at.bin_width, problem.pooled_width, at.grid_width, level.width, samples);
    weigh_axis(samples, problem.pooled_width, at.grid_width, xs);
    if (ys.num_pixels == 0 || xs.num_pixels == 0) continue;
    const A count = static_cast<A>(std::max<int64_t>(at.grid_height * at.grid_width, 1));
    const T* in = grad + entry->roi * layout.image + tile.first_channel * layout.channel;
    if (layout.channel == 1) {
      for (int64_t bin = 0; bin < bins; ++bin)
        for (int64_t c = 0; c < tile.channels; ++c) grads[bin * kTile + c] = load(in[bin * layout.pixel + c]);
    } else {
      transpose(in, layout.channel, tile.channels, bins, grads.data(), kTile);
    }
    for (A& value : grads) value /= count;
    spread_roi<A, W>(ys, xs, problem.pooled_height, problem.pooled_width, grads.data(), tile.channels, row_grads.data(),
                     tile.levels[entry->level], tile.pixel_stride, level.width * tile.pixel_stride);
  }
}

template <typename T, typename A>
MRCNN_INLINE void backward_any(const Problem<A>& problem, const T* grad, Layout layout, const Entry* begin,
                               const Entry* end, const Tile<A>& tile) {
  if (tile.channels == kTile) {
    backward_width<T, kTile>(problem, grad, layout, begin, end, tile);
  } else {
    backward_width<T, 0>(problem, grad, layout, begin, end, tile);
  }
}

// The level of a block and the pixels [first, last) of that level it covers.
struct BlockSpan {
  int64_t level, first, last;
};

MRCNN_INLINE BlockSpan span_of(const std::vector<Level>& levels, int64_t block) {
  int64_t index = 0;
  while (block >= levels[index].first_block + levels[index].num_blocks) ++index;
  const int64_t first = (block - levels[index].first_block) * kBlock;
  return {index, first, std::min(first + kBlock, levels[index].height * levels[index].width)};
}

// Calls work(span, touched) for the blocks [begin, end), neighbours of one level in one piece where all of them are
// touched or none is.
template <typename A, typename Work>
MRCNN_INLINE void for_each_run(const Problem<A>& problem, const uint8_t* touched, int64_t begin, int64_t end,
                               const Work& work) {
  for (int64_t block = begin; block < end;) {
    const bool is_touched = touched[block] != 0;
    BlockSpan run = span_of(problem.levels, block);
    const Level& level = problem.levels[run.level];
    const int64_t limit = std::min({end, level.first_block + level.num_blocks, block + kBlocksOfRun});
    for (++block; block < limit && (touched[block] != 0) == is_touched; ++block)
      run.last = std::min(run.last + kBlock, level.height * level.width);
    work(run, is_touched);
  }
}

template <typename T, typename A>
MRCNN_INLINE void pack_any(const Problem<A>& problem, const std::vector<const T*>& maps, const Layout* layouts,
                           const uint8_t* touched, const Tile<A>& tile, int64_t begin, int64_t end) {
  for_each_run(problem, touched, begin, end, [&](const BlockSpan& run, bool is_touched) {
    if (!is_touched) return;
    const Layout layout = layouts[run.level];
    const T* in = maps[run.level] + tile.first_channel * layout.channel + run.first * layout.pixel;
    A* MRCNN_RESTRICT out = tile.levels[run.level] + run.first * tile.pixel_stride;
    const int64_t pixels = run.last - run.first;
    if (layout.channel == 1) {
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < tile.channels; ++c) out[p * tile.pixel_stride + c] = load(in[p * layout.pixel + c]);
    } else {
      transpose(in, layout.channel, tile.channels, pixels, out, tile.pixel_stride);
    }
  });
}

template <typename T, typename A>
MRCNN_INLINE void unpack_any(const Problem<A>& problem, const std::vector<T*>& maps, const Layout* layouts,
                             const uint8_t* touched, const Tile<A>& tile, int64_t begin, int64_t end) {
  for_each_run(problem, touched, begin, end, [&](const BlockSpan& run, bool is_touched) {
    const Layout layout = layouts[run.level];
    T* MRCNN_RESTRICT out = maps[run.level] + tile.first_channel * layout.channel + run.first * layout.pixel;
    const A* in = tile.levels[run.level] + run.first * tile.pixel_stride;
    const int64_t pixels = run.last - run.first;
    if (layout.channel == 1) {
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < tile.channels; ++c)
          store(is_touched ? in[p * tile.pixel_stride + c] : A(0), out + p * layout.pixel + c);
    } else if (is_touched) {
      transpose(in, tile.pixel_stride, pixels, tile.channels, out, layout.channel);
    } else {
      for (int64_t c = 0; c < tile.channels; ++c) std::memset(out + c * layout.channel, 0, pixels * sizeof(T));
    }
  });
}

}  // namespace

void add_level(std::vector<Level>& levels, int64_t height, int64_t width, double scale) {
  const int64_t first = levels.empty() ? 0 : levels.back().first_block + levels.back().num_blocks;
  levels.push_back({height, width, scale, first, (height * width + kBlock - 1) / kBlock});
}

template <typename A>
std::vector<Entry> order_rois(const Problem<A>& problem, const int64_t* level_of_roi, int64_t num_rois) {
  std::vector<Entry> entries;
  entries.reserve(num_rois);
  for (int64_t roi = 0; roi < num_rois; ++roi) {
    const A* values = problem.rois + roi * 5;
    const bool finite = std::all_of(values, values + 5, [](A value) { return std::isfinite(value); });
    if (!finite || values[0] < 0) continue;
    entries.push_back({roi, level_of_roi ? level_of_roi[roi] : 0, static_cast<int64_t>(values[0]), values[2]});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.image != b.image) return a.image < b.image;
    if (a.level != b.level) return a.level < b.level;
    if (a.top != b.top) return a.top < b.top;
    return a.roi < b.roi;
  });
  return entries;
}

template <typename A>
void mark_blocks(const Problem<A>& problem, const Entry* begin, const Entry* end, uint8_t* touched) {
  std::vector<Sample<A>> samples;
  for (const Entry* entry = begin; entry != end; ++entry) {
    const Level& level = problem.levels[entry->level];
    const Geometry<A> at = locate(problem, *entry);
    sample_axis(at.start_x, at.bin_width, problem.pooled_width, at.grid_width, level.width, samples);
    int64_t left = INT64_MAX, right = -1;
    for (const Sample<A>& sample : samples) {
      if (sample.low < 0) continue;
      left = std::min(left, sample.low);
      right = std::max(right, sample.high);
    }
    if (right < 0) continue;
    sample_axis(at.start_y, at.bin_height, problem.pooled_height, at.grid_height, level.height, samples);
    for (const Sample<A>& sample : samples) {
      if (sample.low < 0) continue;
      for (const int64_t row : {sample.low, sample.high}) {
        uint8_t* first = touched + level.first_block + (row * level.width + left) / kBlock;
        std::fill(first, touched + level.first_block + (row * level.width + right) / kBlock + 1, uint8_t(1));
      }
    }
  }
}

template <typename A>
void clear(const Problem<A>& problem, const uint8_t* touched, const Tile<A>& tile, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    if (touched && !touched[block]) continue;
    const BlockSpan span = span_of(problem.levels, block);
    for (int64_t pixel = span.first; pixel < span.last; ++pixel)
      std::fill_n(tile.levels[span.level] + pixel * tile.pixel_stride, tile.channels, A(0));
  }
}

#define MRCNN_DEFINE(A)                                                                                  \
  template std::vector<Entry> order_rois<A>(const Problem<A>&, const int64_t*, int64_t);                 \
  template void mark_blocks<A>(const Problem<A>&, const Entry*, const Entry*, uint8_t*);                 \
  template void clear<A>(const Problem<A>&, const uint8_t*, const Tile<A>&, int64_t, int64_t);
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
#undef MRCNN_DEFINE

#define MRCNN_DEFINE(T)                                                                                              \
  MRCNN_MULTIVERSION void pack(const Problem<Accumulate<T>::type>& problem, const std::vector<const T*>& maps,       \
                               const Layout* layouts, const uint8_t* touched,                                        \
                               const Tile<Accumulate<T>::type>& tile, int64_t begin, int64_t end) {                  \
    pack_any<T>(problem, maps, layouts, touched, tile, begin, end);                                                  \
  }                                                                                                                  \
  MRCNN_MULTIVERSION void unpack(const Problem<Accumulate<T>::type>& problem, const std::vector<T*>& maps,           \
                                 const Layout* layouts, const uint8_t* touched,                                      \
                                 const Tile<Accumulate<T>::type>& tile, int64_t begin, int64_t end) {                \
    unpack_any<T>(problem, maps, layouts, touched, tile, begin, end);                                                \
  }                                                                                                                  \
  MRCNN_MULTIVERSION void forward(const Problem<Accumulate<T>::type>& problem, const Tile<Accumulate<T>::type>& tile, \
                                  const Entry* begin, const Entry* end, T* output, Layout output_layout) {           \
    forward_any<T>(problem, tile, begin, end, output, output_layout);                                                \
  }                                                                                                                  \
  MRCNN_MULTIVERSION void backward(const Problem<Accumulate<T>::type>& problem, const T* grad, Layout grad_layout,   \
                                   const Entry* begin, const Entry* end, const Tile<Accumulate<T>::type>& tile) {    \
    backward_any<T>(problem, grad, grad_layout, begin, end, tile);                                                   \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::roi_align
