// COCO's text of run lengths, and masks as the places where the pixels change in column-major order: begin and end of
// each run of set pixels, ascending.
#pragma once

#include <cstdint>
#include <vector>

namespace mrcnn {

// Appends the lengths of the runs, zeros first, to text: differences to the length two runs back, five bits a
// character. `changes` may end with num_pixels or before it.
template <typename Position>
void append_run_text(const std::vector<Position>& changes, int64_t num_pixels, std::vector<uint8_t>& text) {
  const size_t count = changes.size();
  const bool is_open = count == 0 || static_cast<int64_t>(changes.back()) != num_pixels;
  int64_t lengths[3] = {};  // of this run and the two before
  int64_t last = 0;
  for (size_t index = 0; index < count + (is_open ? 1 : 0); ++index) {
    const int64_t position = index < count ? static_cast<int64_t>(changes[index]) : num_pixels;
    const int64_t length = position - last;
    last = position;
    lengths[index % 3] = length;
    int64_t rest = index > 2 ? length - lengths[(index + 1) % 3] : length;
    for (bool more = true; more;) {
      const int64_t bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest != -1 : rest != 0;
      text.push_back(static_cast<uint8_t>((more ? bits | 32 : bits) + 48));
    }
  }
}

// Calls add(length, is_set) for each run of a text.
template <typename Add>
void for_each_run(const uint8_t* text, int64_t size, const Add& add) {
  int64_t lengths[3] = {};
  bool is_set = false;
  for (int64_t at = 0, index = 0; at < size; ++index) {
    uint64_t value = 0;
    int shift = 0;
    bool more = true;
    while (more && at < size && shift < 60) {
      const uint64_t bits = static_cast<uint64_t>(text[at++]) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
      more = bits & 32;
      if (!more && bits & 16) value |= ~uint64_t{0} << shift;
    }
    int64_t length = static_cast<int64_t>(value);
    if (index > 2) length += lengths[(index + 1) % 3];
    lengths[index % 3] = length;
    add(length, is_set);
    is_set = !is_set;
  }
}

}  // namespace mrcnn
