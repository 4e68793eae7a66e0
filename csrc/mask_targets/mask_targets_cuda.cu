// One block fills one target, in three steps between barriers: the edges of up to kRingsAtOnce rings mark their
// crossings in a bitmap for each ring, an edge a thread; a warp turns the marks of a ring into its inside and adds it
// to the union; all threads write the pixels. A bitmap has one bit a pixel, column after column. Where the bitmaps of a
// large target do not fit into shared memory, several blocks do a band of its columns each: an outline is closed and so
// crosses each column an even number of times, which lets every column, and every band, begin outside.
#include <algorithm>

#include "mask_targets_cuda.h"

namespace mrcnn::mask_targets {

namespace {

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kRingsAtOnce = 16;
constexpr int kWords = 2048;     // shared words for the bitmaps of the union and of at least one ring
constexpr int kFine = 5;         // fine points per pixel
constexpr float kFar = 800000;   // in pixels of the bitmap: vertices beyond are pulled in, and NaN goes to -kFar
constexpr int kFirstColumn = 2;  // the fine x before the crossing in column 0; that of column n lies kFine * n later

// Columns [begin, end) of a target.
struct Band {
  int resolution;
  int begin;
  int end;

  __device__ int columns() const { return end - begin; }
  // One bit more than there are pixels: a crossing below the last column ends there.
  __device__ int words() const { return columns() * resolution / 32 + 1; }
};

// From pixels of the image to the fine grid of a target.
struct Transform {
  float x, y, scale_x, scale_y;

  __device__ Transform(const float* box, int resolution) : x(box[0]), y(box[1]) {
    // Comparisons, not fmaxf: a side that is not a number stays so.
    const float width = box[2] - x, height = box[3] - y;
    scale_x = static_cast<float>(resolution) / (width < 1.0f ? 1.0f : width);
    scale_y = static_cast<float>(resolution) / (height < 1.0f ? 1.0f : height);
  }

  __device__ int fine_x(const float* vertex) const { return to_fine((vertex[0] - x) * scale_x); }
  __device__ int fine_y(const float* vertex) const { return to_fine((vertex[1] - y) * scale_y); }

 private:
  // The product and the sum are COCO's, in double.
  __device__ static int to_fine(float coordinate) {
    const float near = coordinate >= -kFar ? fminf(coordinate, kFar) : -kFar;
    return static_cast<int>(static_cast<double>(kFine) * static_cast<double>(near) + 0.5);
  }
};

// Edge between two fine points, in the direction in which COCO draws it: one point for each x when it is flat, with
// x1 < x2, else one for each y, with y1 < y2.
class Edge {
 public:
  __device__ Edge(int x1, int y1, int x2, int y2) : flat_(abs(x2 - x1) >= abs(y2 - y1)) {
    const bool turned = flat_ ? x1 > x2 : y1 > y2;
    x1_ = turned ? x2 : x1;
    y1_ = turned ? y2 : y1;
    x2_ = turned ? x1 : x2;
    y2_ = turned ? y1 : y2;
  }

  // Columns whose crossing the edge holds are those from first_column() up to end_column(), which it does not hold.
  __device__ int first_column() const { return pixels_up_to(min(x1_, x2_)); }
  __device__ int end_column() const { return pixels_up_to(max(x1_, x2_)); }

  // What the crossings of one edge have in common. Only for an edge that holds one.
  __device__ void prepare() {
    const double width = static_cast<double>(x2_ - x1_), height = static_cast<double>(y2_ - y1_);
    slope_ = flat_ ? height / width : width / height;
    if (!flat_) steps_per_x_ = height / width;
  }

  // The row before which the edge crosses the middle of a column; it may lie behind the last one.
  __device__ int row(int column) const {
    const int before = kFine * column + kFirstColumn;
    return pixels_up_to(flat_ ? flat_crossing(before) : steep_crossing(before));
  }

 private:
  // Pixels whose middle lies before the fine point.
  __device__ static int pixels_up_to(int fine) {
    return fine <= kFirstColumn ? 0 : (fine - kFirstColumn + kFine - 1) / kFine;
  }

  __device__ int follow(int start, int step) const {
    return static_cast<int>(static_cast<double>(start) + slope_ * static_cast<double>(step) + 0.5);
  }

  // The upper of the two fine points beside the crossing.
  __device__ int flat_crossing(int before) const {
    const int step = before - x1_;
    return min(follow(y1_, step), follow(y1_, step + 1));
  }

  // The x of successive points differ by at most 1.
  __device__ int steep_crossing(int before) const {
    const bool rises = x2_ > x1_;
    const auto has_crossed = [&](int step) { return (follow(x1_, step) > before) == rises; };
    // The first step behind the crossing: up from the whole steps before it, seldom more than once. All roundings
    // together are a hundredth of a step.
    int step = max(static_cast<int>((static_cast<double>(before - x1_) + 0.5) * steps_per_x_), 1);
    while (step < y2_ - y1_ && !has_crossed(step)) ++step;
    return y1_ + step - 1;
  }

  bool flat_;
  int x1_, y1_, x2_, y2_;
  double slope_ = 0, steps_per_x_ = 0;
};

__device__ __forceinline__ void flip_bit(uint32_t* words, int position) {
  uint32_t* word = words + (position >> 5);
  const uint32_t bit = 1u << (position & 31);
  uint32_t expected = 0;
  for (uint32_t found; (found = atomicCAS(word, expected, expected ^ bit)) != expected;) expected = found;
}

// Marks the crossings of an edge in the bitmap of its ring.
__device__ void mark_edge(Edge edge, const Band& band, uint32_t* words) {
  const int first = max(edge.first_column(), band.begin), end = min(edge.end_column(), band.end);
  if (first >= end) return;
  edge.prepare();
  for (int column = first; column < end; ++column) {
    flip_bit(words, (column - band.begin) * band.resolution + min(edge.row(column), band.resolution));
  }
}

// A warp adds the inside of one ring to the union: each pixel with an odd number of crossings up to itself.
__device__ void unite_ring(const uint32_t* ring, int num_words, uint32_t* inside) {
  const int lane = threadIdx.x % kWarp;
  uint32_t parity = 0;
  for (int base = 0; base < num_words; base += kWarp) {
    const int index = base + lane;
    uint32_t word = index < num_words ? ring[index] : 0;
    for (int shift = 1; shift < 32; shift *= 2) word ^= word << shift;
    const uint32_t odd_words = __ballot_sync(0xffffffffu, word >> 31);
    const uint32_t odd_before = parity ^ (__popc(odd_words & ((1u << lane) - 1)) & 1);
    if (odd_before) word = ~word;
    if (index < num_words && word != 0) atomicOr(inside + index, word);
    parity ^= __popc(odd_words) & 1;
  }
}

// Rings [first, end) of an instance; valid: whether there is such an instance.
struct Rings {
  int64_t first, end;
  bool valid;
};

__device__ Rings rings_of(const PackedPolygons& polygons, int64_t instance) {
  if (instance < 0) return {0, 0, true};
  if (instance >= polygons.num_instances) return {0, 0, false};
  const Rings rings{polygons.instance_offsets[instance], polygons.instance_offsets[instance + 1], true};
  const bool valid = 0 <= rings.first && rings.first <= rings.end && rings.end <= polygons.num_rings;
  return valid ? rings : Rings{0, 0, false};
}

__device__ void write_band(const uint32_t* inside, const Band& band, bool valid, float* target) {
  for (int index = threadIdx.x; index < band.columns() * band.resolution; index += kThreads) {
    const int row = index / band.columns(), column = index % band.columns();
    const int position = column * band.resolution + row;
    const float value = static_cast<float>(inside[position >> 5] >> (position & 31) & 1);
    target[row * band.resolution + band.begin + column] = valid ? value : __int_as_float(0x7fc00000);
  }
}

// Up to kRingsAtOnce rings of an instance at work, in shared memory.
struct Workspace {
  int64_t* starts;    // first vertex of each ring, and the end of the last one
  uint32_t* bitmaps;  // of each ring
};

// Clears the workspace for the rings first to first + count. Returns whether their offsets keep within their bounds.
__device__ bool open_workspace(const PackedPolygons& polygons, int64_t first, int count, int num_words,
                               const Workspace& workspace) {
  bool valid = true;
  for (int word = threadIdx.x; word < count * num_words; word += kThreads) workspace.bitmaps[word] = 0;
  for (int ring = threadIdx.x; ring < count; ring += kThreads) {
    const int64_t start = polygons.ring_offsets[first + ring], end = polygons.ring_offsets[first + ring + 1];
    valid = valid && 0 <= start && start <= end && end <= polygons.num_vertices;
    workspace.starts[ring] = start;
    if (ring == count - 1) workspace.starts[count] = end;
  }
  return !__syncthreads_or(!valid);
}

__device__ void mark_rings(const float* coords, int num_rings, const Transform& transform, const Band& band,
                           const Workspace& workspace) {
  const int64_t* starts = workspace.starts;
  int ring = 0;
  for (int64_t vertex = starts[0] + threadIdx.x; vertex < starts[num_rings]; vertex += kThreads) {
    while (vertex >= starts[ring + 1]) ++ring;
    const float* here = coords + vertex * 2;
    const float* last = coords + ((vertex > starts[ring] ? vertex : starts[ring + 1]) - 1) * 2;
    const Edge edge(transform.fine_x(last), transform.fine_y(last), transform.fine_x(here), transform.fine_y(here));
    mark_edge(edge, band, workspace.bitmaps + ring * band.words());
  }
}

// Adds the insides of all rings to the union. Returns whether all offsets are good. Ends with a barrier.
__device__ bool fill_rings(const PackedPolygons& polygons, const Rings& rings, const Transform& transform,
                           const Band& band, const Workspace& workspace, uint32_t* inside) {
  const int num_words = band.words(), rings_at_once = min(kRingsAtOnce, kWords / num_words - 1);
  bool valid = rings.valid;
  for (int word = threadIdx.x; word < num_words; word += kThreads) inside[word] = 0;
  for (int64_t first = rings.first; first < rings.end && valid; first += rings_at_once) {
    const int64_t left = rings.end - first;
    const int count = left < rings_at_once ? static_cast<int>(left) : rings_at_once;
    valid = open_workspace(polygons, first, count, num_words, workspace);
    if (valid) mark_rings(polygons.coords, count, transform, band, workspace);
    __syncthreads();
    for (int ring = threadIdx.x / kWarp; ring < count; ring += kThreads / kWarp) {
      unite_ring(workspace.bitmaps + ring * num_words, num_words, inside);
    }
    __syncthreads();
  }
  __syncthreads();
  return valid;
}

__global__ void __launch_bounds__(kThreads)
    fill_targets_kernel(PackedPolygons polygons, const int64_t* __restrict__ instances,
                        const float* __restrict__ boxes, int64_t num_boxes, int resolution, int band_columns,
                        int num_bands, float* __restrict__ targets) {
  MRCNN_SHARED(uint32_t, bitmaps, kWords);
  MRCNN_SHARED(int64_t, starts, kRingsAtOnce + 1);
  for (int64_t item = blockIdx.x; item < num_boxes * num_bands; item += gridDim.x) {
    const int64_t position = item / num_bands;
    const int begin = static_cast<int>(item % num_bands) * band_columns;
    const Band band{resolution, begin, min(begin + band_columns, resolution)};
    const Transform transform(boxes + position * 4, resolution);
    const Workspace workspace{starts, bitmaps + band.words()};
    const bool valid =
        fill_rings(polygons, rings_of(polygons, instances[position]), transform, band, workspace, bitmaps);
    write_band(bitmaps, band, valid, targets + position * resolution * resolution);
    __syncthreads();
  }
}

}  // namespace

cudaError_t fill_targets(const PackedPolygons& polygons, const int64_t* instances, const float* boxes,
                         int64_t num_boxes, int64_t resolution, float* targets, cudaStream_t stream) {
  if (num_boxes == 0) return cudaSuccess;
  // Half of the shared words may hold the union, the other half a ring.
  const int64_t fitting = std::max<int64_t>((kWords / 2 * 32 - 1) / resolution, 1);
  const int64_t band_columns = std::min(fitting, resolution);
  const int64_t num_bands = (resolution + band_columns - 1) / band_columns;
  MRCNN_LAUNCH(fill_targets_kernel, grid_for(num_boxes * num_bands), dim3(kThreads), 0, stream, polygons,
               instances, boxes, num_boxes, static_cast<int>(resolution), static_cast<int>(band_columns),
               static_cast<int>(num_bands), targets);
  return MRCNN_CHECK_LAUNCH();
}

}  // namespace mrcnn::mask_targets
