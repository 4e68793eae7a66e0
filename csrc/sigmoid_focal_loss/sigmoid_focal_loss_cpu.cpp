#include "sigmoid_focal_loss_cpu.h"

#include <algorithm>

#include "focal_math.h"

namespace mrcnn::sigmoid_focal_loss {

namespace {

constexpr int64_t kLanes = 16;

// The logits [begin, end) of the flattened problem.
struct Range {
  int64_t begin, end;

  int64_t size() const { return end - begin; }
};

template <typename T>
Range range_of(const Problem<T>& problem, int64_t chunk) {
  return {chunk * kChunk, std::min((chunk + 1) * kChunk, problem.size())};
}

// Calls work(first, last, positive, target) for each row's part of the range: places in the range, the last one not
// included, and where the true class stands, -1 if elsewhere.
template <typename T, typename Work>
MRCNN_INLINE void for_each_row(const Problem<T>& problem, const Range& range, const Work& work) {
  int64_t row = range.begin / problem.num_classes, start = row * problem.num_classes - range.begin;
  for (; start < range.size(); ++row, start += problem.num_classes) {
    const int64_t first = std::max<int64_t>(start, 0), last = std::min(start + problem.num_classes, range.size());
    const int64_t target = problem.targets[row], place = start + target - 1;
    const bool is_here = target > 0 && target <= problem.num_classes && place >= first && place < last;
    work(first, last, is_here ? place : -1, target);
  }
}

template <typename T, typename A>
void fill_margins(const Problem<T>& problem, const Range& range, A* MRCNN_RESTRICT margins) {
  const T* logits = problem.logits + range.begin;
  for_each_row(problem, range, [&](int64_t first, int64_t last, int64_t positive, int64_t target) {
    if (target < 0) {
      std::fill(margins + first, margins + last, kIgnored<A>);
      return;
    }
    for (int64_t place = first; place < last; ++place) margins[place] = -load(logits[place]);
    if (positive >= 0) margins[positive] = load(logits[positive]);
  });
}

// In place of each margin its loss, or minus its derivative, without the weight.
template <bool kSquared, bool kDerive, typename A>
MRCNN_INLINE void replace_with(A* values, int64_t count, A gamma) {
  for (int64_t place = 0; place < count; ++place) {
    const Terms<A> terms = terms_of<kSquared>(values[place], gamma);
    values[place] = kDerive ? terms.slope(gamma) : terms.loss();
  }
}

#define MRCNN_DEFINE(versions, A)                                                                                      \
  versions void losses_squared(A* values, int64_t count, A gamma) { replace_with<true, false>(values, count, gamma); } \
  versions void losses(A* values, int64_t count, A gamma) { replace_with<false, false>(values, count, gamma); }        \
  versions void slopes_squared(A* values, int64_t count, A gamma) { replace_with<true, true>(values, count, gamma); }  \
  versions void slopes(A* values, int64_t count, A gamma) { replace_with<false, true>(values, count, gamma); }

MRCNN_DEFINE(MRCNN_MULTIVERSION, float)
MRCNN_DEFINE(, double)
#undef MRCNN_DEFINE

template <typename A>
void to_losses(A* values, int64_t count, double gamma) {
  gamma == 2 ? losses_squared(values, count, A(2)) : losses(values, count, static_cast<A>(gamma));
}

template <typename A>
void to_slopes(A* values, int64_t count, double gamma) {
  gamma == 2 ? slopes_squared(values, count, A(2)) : slopes(values, count, static_cast<A>(gamma));
}

// In a fixed order, side by side in lanes.
template <typename A>
double sum_of(const A* values, int64_t count) {
  double lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t place = 0; place < whole; place += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(values[place + lane]);
  }
  for (int64_t place = whole; place < count; ++place) lanes[place - whole] += static_cast<double>(values[place]);
  double sum = 0;
  for (double lane : lanes) sum += lane;
  return sum;
}

template <typename T>
double sum_of_chunk(const Problem<T>& problem, int64_t chunk) {
  using A = typename Accumulate<T>::type;
  const Range range = range_of(problem, chunk);
  A values[kChunk];
  fill_margins(problem, range, values);
  to_losses(values, range.size(), problem.gamma);
  double positives = 0;
  for_each_row(problem, range, [&](int64_t, int64_t, int64_t positive, int64_t) {
    if (positive < 0) return;
    positives += static_cast<double>(values[positive]);
    values[positive] = 0;
  });
  return problem.alpha * positives + (1 - problem.alpha) * sum_of(values, range.size());
}

// A logit that grows makes the loss of the true class smaller, and of another one larger.
template <typename T>
void gradient_of_chunk(const Problem<T>& problem, int64_t chunk, double scale, T* gradient) {
  using A = typename Accumulate<T>::type;
  const Range range = range_of(problem, chunk);
  A values[kChunk];
  fill_margins(problem, range, values);
  to_slopes(values, range.size(), problem.gamma);
  const A up = static_cast<A>((1 - problem.alpha) * scale), down = static_cast<A>(-problem.alpha * scale);
  T* output = gradient + range.begin;
  for_each_row(problem, range, [&](int64_t first, int64_t last, int64_t positive, int64_t) {
    for (int64_t place = first; place < last; ++place) store(up * values[place], output + place);
    if (positive >= 0) store(down * values[positive], output + positive);
  });
}

}  // namespace

#define MRCNN_DEFINE(T)                                                                               \
  double sum_chunk(const Problem<T>& problem, int64_t chunk) { return sum_of_chunk(problem, chunk); } \
  void differentiate_chunk(const Problem<T>& problem, int64_t chunk, double scale, T* gradient) {     \
    gradient_of_chunk(problem, chunk, scale, gradient);                                               \
  }

MRCNN_DEFINE(float)
MRCNN_DEFINE(double)
MRCNN_DEFINE(Half)
MRCNN_DEFINE(BFloat16)
#undef MRCNN_DEFINE

}  // namespace mrcnn::sigmoid_focal_loss
