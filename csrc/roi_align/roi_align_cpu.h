// ROIAlign over the levels of a feature pyramid, for CPUs. Nothing here knows torch.
//
// Shapes: N images, C channels, H W, L levels, R rois, T channels of one tile.
//
// The kernels work on float (or double) values with the channels of one pixel side by side, one tile of channels at a
// time. Maps that already look so are read where they lie; others are packed, tile by tile, into a scratch pyramid
// that the last-level cache can hold, and only where some roi reads. 16-bit values become float on the way.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/half.h"

namespace mrcnn::roi_align {

constexpr int64_t kTile = 64;   // channels of one tile at most
constexpr int64_t kBlock = 32;  // pixels that are packed together

struct Level {
  int64_t height;
  int64_t width;
  double scale;         // feature pixels per image pixel
  int64_t first_block;  // where its blocks begin among those of one image
  int64_t num_blocks;
};

// A roi that reads something: its image is known and its coordinates are finite.
struct Entry {
  int64_t roi;
  int64_t level;
  int64_t image;
  double top;  // for the order only
};

template <typename A>
struct Problem {
  const A* rois;  // [R, 5] batch index, x1, y1, x2, y2
  std::vector<Level> levels;
  int64_t num_images;
  int64_t channels;
  int64_t pooled_height;
  int64_t pooled_width;
  int64_t sampling_ratio;  // samples per bin and axis; 0: one per feature pixel, rounded up

  int64_t bins() const { return pooled_height * pooled_width; }
  int64_t blocks() const { return levels.back().first_block + levels.back().num_blocks; }
};

// Strides in elements of an (N, C, H, W) tensor whose pixels are dense.
struct Layout {
  int64_t image;
  int64_t channel;
  int64_t pixel;
};

// The tile [first_channel, first_channel + channels) of one image, all levels.
template <typename A>
struct Tile {
  std::vector<A*> levels;  // pixel 0, first channel of the tile
  int64_t pixel_stride;
  int64_t first_channel;
  int64_t channels;
};

// Appends a level behind the others.
void add_level(std::vector<Level>& levels, int64_t height, int64_t width, double scale);

// The rois that read something, ordered by image, level and upper edge, so that neighbours share cache lines; the order
// is the same for every number of threads. level_of_roi may be null: all on level 0.
template <typename A>
std::vector<Entry> order_rois(const Problem<A>& problem, const int64_t* level_of_roi, int64_t num_rois);

// Marks the blocks of one image that the given rois of that image read. touched: [blocks()], zeros at first.
template <typename A>
void mark_blocks(const Problem<A>& problem, const Entry* begin, const Entry* end, uint8_t* touched);

// Copies touched blocks [begin, end) of one image between the maps, one pointer a level, and a tile. unpack writes
// zeros where a block is untouched.
#define MRCNN_DECLARE(T)                                                                                              \
  void pack(const Problem<Accumulate<T>::type>& problem, const std::vector<const T*>& maps, const Layout* layouts,    \
            const uint8_t* touched, const Tile<Accumulate<T>::type>& tile, int64_t begin, int64_t end);               \
  void unpack(const Problem<Accumulate<T>::type>& problem, const std::vector<T*>& maps, const Layout* layouts,        \
              const uint8_t* touched, const Tile<Accumulate<T>::type>& tile, int64_t begin, int64_t end);             \
  /* Pools the rois [begin, end) of one image from a tile into output, an (R, C, ph, pw) tensor. */                   \
  void forward(const Problem<Accumulate<T>::type>& problem, const Tile<Accumulate<T>::type>& tile, const Entry* begin, \
               const Entry* end, T* output, Layout output_layout);                                                    \
  /* Adds the gradients of the rois [begin, end) of one image to a tile, in this order. */                            \
  void backward(const Problem<Accumulate<T>::type>& problem, const T* grad, Layout grad_layout, const Entry* begin,   \
                const Entry* end, const Tile<Accumulate<T>::type>& tile);

MRCNN_DECLARE(float)
MRCNN_DECLARE(double)
MRCNN_DECLARE(Half)
MRCNN_DECLARE(BFloat16)
#undef MRCNN_DECLARE

// Sets the touched blocks [begin, end) of a tile to zero; touched may be null: all of them.
template <typename A>
void clear(const Problem<A>& problem, const uint8_t* touched, const Tile<A>& tile, int64_t begin, int64_t end);

}  // namespace mrcnn::roi_align
