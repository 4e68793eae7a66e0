// Work of uneven size for the host files: each thread takes the next item when it is done with one.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

namespace mrcnn {

// Calls work(state, item) for every item; each thread has one state of its own, made by make_state(). Which thread does
// an item is open, so the result of an item may depend on nothing else.
template <typename MakeState, typename Work>
void for_each_item(int64_t num_items, const MakeState& make_state, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = at::get_num_threads();
  at::parallel_for(0, threads < num_items ? threads : num_items, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      auto state = make_state();
      for (int64_t item = next++; item < num_items; item = next++) work(state, item);
    }
  });
}

}  // namespace mrcnn
