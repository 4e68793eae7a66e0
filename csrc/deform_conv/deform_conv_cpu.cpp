#include "deform_conv_cpu.h"

#include <algorithm>

namespace mrcnn::deform_conv {

namespace {

constexpr int64_t kTile = 64;   // channels that are read at once
constexpr int64_t kLanes = 16;  // sums that run side by side

// What a corner outside of the map reads.
template <typename T>
constexpr T kZeros[kTile] = {};

// The values of up to kTile channels at the four corners of a sample.
template <typename T>
struct Corners {
  const T* values[4];

  template <typename A>
  MRCNN_INLINE Corners(const Sample<A>& sample, const T* input, int64_t channels, int64_t first) {
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = sample.places[corner];
      values[corner] = place < 0 ? kZeros<T> : input + place * channels + first;
    }
  }
};

// Where the channels from `first` on of one tap stand among the columns.
template <typename A>
MRCNN_INLINE int64_t column_of(const Problem<A>& problem, int64_t tap, int64_t first) {
  const int64_t size = problem.group_channels();
  return (first / size * problem.taps() + tap) * size + first % size;
}

template <typename T, typename A>
MRCNN_INLINE void blend(const Corners<T>& corners, const Sample<A>& sample, int64_t count, A* MRCNN_RESTRICT output) {
  const T *MRCNN_RESTRICT v0 = corners.values[0], *MRCNN_RESTRICT v1 = corners.values[1];
  const T *MRCNN_RESTRICT v2 = corners.values[2], *MRCNN_RESTRICT v3 = corners.values[3];
  const A w0 = sample.weight(0), w1 = sample.weight(1), w2 = sample.weight(2), w3 = sample.weight(3);
  for (int64_t c = 0; c < count; ++c) {
    output[c] = load(v0[c]) * w0 + load(v1[c]) * w1 + load(v2[c]) * w2 + load(v3[c]) * w3;
  }
}

// Adds the sums over the channels of grad times each corner to products[4], kLanes sums at a time in a fixed order.
template <typename T, typename A>
MRCNN_INLINE void multiply(const Corners<T>& corners, const A* MRCNN_RESTRICT grad, int64_t count, A* products) {
  for (int corner = 0; corner < 4; ++corner) {
    const T* MRCNN_RESTRICT values = corners.values[corner];
    A sums[kLanes] = {};
    int64_t c = 0;
    for (; c + kLanes <= count; c += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += grad[c + lane] * load(values[c + lane]);
    }
    A total = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) total += sums[lane];
    for (; c < count; ++c) total += grad[c] * load(values[c]);
    products[corner] += total;
  }
}

template <typename A>
void locate_any(const Problem<A>& problem, int64_t begin, int64_t end, Sample<A>* samples) {
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const Origin origin = origin_of(problem, pixel);
    for (int64_t index = 0; index < problem.samples(); ++index) *samples++ = locate(problem, origin, pixel, index);
  }
}

// Calls body(sample of the row, tap, block) for all channels of a row, tap after tap.
template <typename A, typename Body>
MRCNN_INLINE void for_each_block(const Problem<A>& problem, const ChannelBlock* blocks, int64_t num_blocks,
                                 const Body& body) {
  for (int64_t block = 0; block < num_blocks; ++block) {
    const int64_t part = blocks[block].first / problem.sample_channels() * problem.taps();
    for (int64_t tap = 0; tap < problem.taps(); ++tap) body(part + tap, tap, blocks[block]);
  }
}

template <typename T, typename A>
MRCNN_INLINE void read_any(const Problem<A>& problem, const ChannelBlock* blocks, int64_t num_blocks,
                           const Sample<A>* samples, const T* input, int64_t rows, A* columns) {
  for (int64_t row = 0; row < rows; ++row) {
    const Sample<A>* own = samples + row * problem.samples();
    A* destination = columns + row * problem.taps() * problem.channels;
    for_each_block(problem, blocks, num_blocks, [&](int64_t index, int64_t tap, ChannelBlock block) {
      A* output = destination + column_of(problem, tap, block.first);
      if (own[index].reads()) {
        blend(Corners<T>(own[index], input, problem.channels, block.first), own[index], block.count, output);
      } else {
        std::fill_n(output, block.count, A(0));
      }
    });
  }
}

template <typename T, typename A>
MRCNN_INLINE void read_backward_any(const Problem<A>& problem, const ChannelBlock* blocks, int64_t num_blocks,
                                    const Sample<A>* samples, const T* input, const A* columns_grad, int64_t rows,
                                    A* products, SampleGrad<A>* grads) {
  for (int64_t row = 0; row < rows; ++row) {
    const Sample<A>* own = samples + row * problem.samples();
    const A* source = columns_grad + row * problem.taps() * problem.channels;
    std::fill_n(products, 4 * problem.samples(), A(0));
    for_each_block(problem, blocks, num_blocks, [&](int64_t index, int64_t tap, ChannelBlock block) {
      if (!own[index].reads()) return;
      multiply(Corners<T>(own[index], input, problem.channels, block.first),
               source + column_of(problem, tap, block.first), block.count, products + 4 * index);
    });
    for (int64_t index = 0; index < problem.samples(); ++index) {
      grads[row * problem.samples() + index] = grad_of(own[index], products + 4 * index);
    }
  }
}

template <typename A>
MRCNN_INLINE void scatter_any(const Problem<A>& problem, const Sample<A>* samples, const A* columns_grad, int64_t rows,
                              ChannelBlock block, A* sums) {
  const int64_t part = block.first / problem.sample_channels() * problem.taps();
  for (int64_t row = 0; row < rows; ++row) {
    const A* source = columns_grad + row * problem.taps() * problem.channels;
    for (int64_t tap = 0; tap < problem.taps(); ++tap) {
      const Sample<A>& sample = samples[row * problem.samples() + part + tap];
      const A* MRCNN_RESTRICT grad = source + column_of(problem, tap, block.first);
      for (int corner = 0; corner < 4; ++corner) {
        if (sample.places[corner] < 0) continue;
        const A weight = sample.weight(corner);
        A* MRCNN_RESTRICT sum = sums + sample.places[corner] * problem.channels + block.first;
        for (int64_t c = 0; c < block.count; ++c) sum[c] += grad[c] * weight;
      }
    }
  }
}

template <typename A>
std::vector<ChannelBlock> tiles_of(const Problem<A>& problem) {
  return channel_blocks(problem.channels, problem.groups, problem.deformable_groups, kTile);
}

}  // namespace

std::vector<ChannelBlock> channel_blocks(int64_t channels, int64_t groups, int64_t deformable_groups, int64_t most) {
  std::vector<ChannelBlock> blocks;
  const int64_t group = channels / groups, part = channels / deformable_groups;
  for (int64_t first = 0; first < channels; first += blocks.back().count) {
    blocks.push_back({first, std::min({most, group - first % group, part - first % part})});
  }
  return blocks;
}

void locate(const Problem<float>& problem, int64_t begin, int64_t end, Sample<float>* samples) {
  locate_any(problem, begin, end, samples);
}

void locate(const Problem<double>& problem, int64_t begin, int64_t end, Sample<double>* samples) {
  locate_any(problem, begin, end, samples);
}

// The blocks are made outside of what is compiled for several instruction sets.
#define MRCNN_DEFINE(T)                                                                                              \
  MRCNN_MULTIVERSION void read_blocks(const Problem<Accumulate<T>::type>& problem, const ChannelBlock* blocks,       \
                                      int64_t num_blocks, const Sample<Accumulate<T>::type>* samples,                \
                                      const T* input, int64_t rows, Accumulate<T>::type* columns) {                  \
    read_any(problem, blocks, num_blocks, samples, input, rows, columns);                                            \
  }                                                                                                                  \
  void read(const Problem<Accumulate<T>::type>& problem, const Sample<Accumulate<T>::type>* samples, const T* input, \
            int64_t rows, Accumulate<T>::type* columns) {                                                            \
    const std::vector<ChannelBlock> blocks = tiles_of(problem);                                                      \
    read_blocks(problem, blocks.data(), blocks.size(), samples, input, rows, columns);                               \
  }                                                                                                                  \
  MRCNN_MULTIVERSION void read_blocks_backward(                                                                      \
      const Problem<Accumulate<T>::type>& problem, const ChannelBlock* blocks, int64_t num_blocks,                   \
      const Sample<Accumulate<T>::type>* samples, const T* input, const Accumulate<T>::type* columns_grad,           \
      int64_t rows, Accumulate<T>::type* products, SampleGrad<Accumulate<T>::type>* grads) {                         \
    read_backward_any(problem, blocks, num_blocks, samples, input, columns_grad, rows, products, grads);             \
  }                                                                                                                  \
  void read_backward(const Problem<Accumulate<T>::type>& problem, const Sample<Accumulate<T>::type>* samples,        \
                     const T* input, const Accumulate<T>::type* columns_grad, int64_t rows,                          \
                     SampleGrad<Accumulate<T>::type>* grads) {                                                       \
    const std::vector<ChannelBlock> blocks = tiles_of(problem);                                                      \
    std::vector<Accumulate<T>::type> products(4 * problem.samples());                                                \
    read_blocks_backward(problem, blocks.data(), blocks.size(), samples, input, columns_grad, rows, products.data(), \
                         grads);                                                                                     \
  }
MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

MRCNN_MULTIVERSION void scatter(const Problem<float>& problem, const Sample<float>* samples, const float* columns_grad,
                                int64_t rows, ChannelBlock block, float* sums) {
  scatter_any(problem, samples, columns_grad, rows, block, sums);
}

MRCNN_MULTIVERSION void scatter(const Problem<double>& problem, const Sample<double>* samples,
                                const double* columns_grad, int64_t rows, ChannelBlock block, double* sums) {
  scatter_any(problem, samples, columns_grad, rows, block, sums);
}

}  // namespace mrcnn::deform_conv
