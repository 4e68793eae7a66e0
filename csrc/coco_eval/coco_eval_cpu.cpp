#include "coco_eval_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "../common/outline.h"
#include "../common/rle.h"

namespace mrcnn::coco_eval {

namespace {

constexpr double kFar = 1 << 28;  // in pixels: vertices beyond are pulled in, and NaN goes to -kFar

// A coordinate on the fine grid, rounded as COCO does: towards zero after adding a half.
int64_t to_fine(double coordinate) {
  const double near = coordinate >= -kFar ? std::min(coordinate, kFar) : -kFar;
  return static_cast<int64_t>(static_cast<double>(kFine) * near + 0.5);
}

// Sorted places of change, where two at one place cancel.
void normalize(Changes& changes) {
  std::sort(changes.begin(), changes.end());
  size_t kept = 0;
  for (const uint32_t place : changes) {
    if (kept > 0 && changes[kept - 1] == place) {
      --kept;
    } else {
      changes[kept++] = place;
    }
  }
  changes.resize(kept);
}

// A mask whose last run has no end goes on to the last pixel.
void close(Changes& changes, int64_t num_pixels) {
  if (changes.size() % 2) changes.push_back(static_cast<uint32_t>(num_pixels));
  while (changes.size() >= 2 && changes[changes.size() - 2] == changes.back()) changes.resize(changes.size() - 2);
}

// The union of two masks.
void unite(const Changes& first, const Changes& second, Changes& result) {
  result.clear();
  size_t a = 0, b = 0;
  while (a < first.size() || b < second.size()) {
    const bool takes_first = b >= second.size() || (a < first.size() && first[a] <= second[b]);
    const uint32_t begin = takes_first ? first[a] : second[b];
    const uint32_t end = takes_first ? first[a + 1] : second[b + 1];
    takes_first ? a += 2 : b += 2;
    if (!result.empty() && begin <= result.back()) {
      result.back() = std::max(result.back(), end);
    } else {
      result.push_back(begin);
      result.push_back(end);
    }
  }
}

// Reads a text; returns the number of set pixels.
int64_t decode(const uint8_t* text, int64_t size, Changes& changes) {
  changes.clear();
  int64_t position = 0, num_set = 0;
  for_each_run(text, size, [&](int64_t length, bool is_set) {
    if (is_set && length > 0) {
      if (!changes.empty() && changes.back() == position) {
        changes.back() = static_cast<uint32_t>(position + length);
      } else {
        changes.push_back(static_cast<uint32_t>(position));
        changes.push_back(static_cast<uint32_t>(position + length));
      }
      num_set += length;
    }
    position += length;
  });
  return num_set;
}

// Number of pixels that both masks have.
int64_t shared_pixels(const Changes& first, const Changes& second) {
  if (first.empty() || second.empty() || first.back() <= second.front() || second.back() <= first.front()) return 0;
  // Runs that end before the other mask begins are passed over. An odd place is an end.
  const auto start = [](const Changes& changes, uint32_t from) {
    return (std::upper_bound(changes.begin(), changes.end(), from) - changes.begin()) & ~std::ptrdiff_t{1};
  };
  const uint32_t *a = first.data() + start(first, second.front()), *a_end = first.data() + first.size();
  const uint32_t *b = second.data() + start(second, first.front()), *b_end = second.data() + second.size();
  int64_t shared = 0;
  while (a < a_end && b < b_end) {
    const uint32_t begin = std::max(a[0], b[0]), end = std::min(a[1], b[1]);
    shared += begin < end ? end - begin : 0;
    const bool first_ends = a[1] <= b[1];
    a += first_ends ? 2 : 0;
    b += first_ends ? 0 : 2;
  }
  return shared;
}

}  // namespace

std::vector<uint8_t> rasterize(const Outline& outline, Scratch& scratch) {
  const int64_t num_pixels = outline.height * outline.width;
  scratch.all.clear();
  for (int64_t ring = 0; ring < outline.num_rings; ++ring) {
    const int64_t begin = outline.ring_offsets[ring], end = outline.ring_offsets[ring + 1];
    if (begin == end) continue;
    scratch.ring.clear();
    Crossings crossings(outline.height, outline.width, [&](int64_t column, int64_t row) {
      scratch.ring.push_back(static_cast<uint32_t>(column * outline.height + row));
    });
    int64_t x = to_fine(outline.coords[end * 2 - 2]), y = to_fine(outline.coords[end * 2 - 1]);
    for (int64_t vertex = begin; vertex < end; ++vertex) {
      const int64_t next_x = to_fine(outline.coords[vertex * 2]), next_y = to_fine(outline.coords[vertex * 2 + 1]);
      crossings.draw(x, y, next_x, next_y);
      x = next_x;
      y = next_y;
    }
    normalize(scratch.ring);
    close(scratch.ring, num_pixels);
    unite(scratch.all, scratch.ring, scratch.merged);
    scratch.all.swap(scratch.merged);
  }
  std::vector<uint8_t> text;
  append_run_text(scratch.all, num_pixels, text);
  return text;
}

int64_t area(const uint8_t* text, int64_t size) {
  int64_t num_set = 0;
  for_each_run(text, size, [&](int64_t length, bool is_set) { num_set += is_set ? length : 0; });
  return num_set;
}

void overlaps(const Texts& detections, int64_t first_detection, int64_t num_detections, const Texts& objects,
              int64_t first_object, int64_t num_objects, const uint8_t* is_crowd, Scratch& scratch, double* ious) {
  if (static_cast<int64_t>(scratch.objects.size()) < num_objects) {
    scratch.objects.resize(num_objects);
    scratch.object_areas.resize(num_objects);
  }
  for (int64_t g = 0; g < num_objects; ++g) {
    scratch.object_areas[g] =
        decode(objects.begin(first_object + g), objects.size(first_object + g), scratch.objects[g]);
  }
  for (int64_t d = 0; d < num_detections; ++d) {
    const int64_t own =
        decode(detections.begin(first_detection + d), detections.size(first_detection + d), scratch.all);
    for (int64_t g = 0; g < num_objects; ++g) {
      const int64_t shared = shared_pixels(scratch.all, scratch.objects[g]);
      const int64_t whole = is_crowd[first_object + g] ? own : own + scratch.object_areas[g] - shared;
      ious[d * num_objects + g] = shared > 0 ? static_cast<double>(shared) / static_cast<double>(whole) : 0.0;
    }
  }
}

void match(const Group& group, double threshold, Scratch& scratch, int32_t* matches) {
  const int64_t count = group.num_objects;
  scratch.taken.assign(count, 0);
  // Objects that count come before those that do not.
  scratch.order.resize(count);
  std::iota(scratch.order.begin(), scratch.order.end(), 0);
  const auto ignored_begin = std::stable_partition(scratch.order.begin(), scratch.order.end(),
                                                   [&](int32_t g) { return !group.is_ignored[g]; });
  for (int64_t d = 0; d < group.num_detections; ++d) {
    const double* ious = group.ious + d * count;
    int32_t best = -1;
    double best_iou = std::min(threshold, 1 - 1e-10);
    for (auto it = scratch.order.begin(); it != scratch.order.end(); ++it) {
      if (it == ignored_begin && best >= 0) break;  // only who finds no object that counts may find another one
      const int32_t g = *it;
      if ((scratch.taken[g] && !group.is_crowd[g]) || ious[g] < best_iou) continue;
      best_iou = ious[g];
      best = g;
    }
    matches[d] = best;
    if (best >= 0) scratch.taken[best] = 1;
  }
}

}  // namespace mrcnn::coco_eval
