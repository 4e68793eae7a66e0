// One value of the focal loss, for CPUs and CUDA devices alike. Nothing here knows torch.
//
// A margin s is how far a logit lies on the right side of 0: the logit of the true class, minus the logit of another.
// With q = sigmoid(-s), the probability of the wrong answer, and p = 1 - q, the loss without its weight is
// q^gamma * log(1 + e^-s) and its derivative -q^gamma * (gamma * p * log(1 + e^-s) + q). All of it comes from
// e^-|s|, which neither overflows nor cancels.
#pragma once

#include <cmath>
#include <limits>

#include "../common/half.h"

namespace mrcnn::sigmoid_focal_loss {

// e^-x for x >= 0, to two units in the last place; 0 where that is below the smallest normal number. Without branches,
// so that loops over it vectorise.
MRCNN_INLINE float exp_of_minus(float x) {
  constexpr float kToInteger = 12582912.0f;  // 1.5 * 2^23: added and subtracted it rounds
  constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  const float shifted = x * -1.44269504f + kToInteger, whole = shifted - kToInteger;
  const float rest = (-x - whole * kLog2High) - whole * kLog2Low;  // at most log(2) / 2
  float power = 1.0f / 5040;
  power = power * rest + 1.0f / 720;
  power = power * rest + 1.0f / 120;
  power = power * rest + 1.0f / 24;
  power = power * rest + 1.0f / 6;
  power = power * rest + 0.5f;
  power = power * rest + 1.0f;
  power = power * rest + 1.0f;
  const uint32_t exponent = bits_from_float(shifted) - bits_from_float(kToInteger) + 127;
  const float result = power * float_from_bits(exponent << 23);
  return x > 87.0f ? 0.0f : result;
}

MRCNN_INLINE double exp_of_minus(double x) { return exp(-x); }

// log(1 + x) for 0 <= x <= 1, as 2 artanh(x / (2 + x)), whose series is short there.
MRCNN_INLINE float log_of_one_plus(float x) {
  const float ratio = x / (2.0f + x), square = ratio * ratio;
  float series = 1.0f / 13;
  series = series * square + 1.0f / 11;
  series = series * square + 1.0f / 9;
  series = series * square + 1.0f / 7;
  series = series * square + 1.0f / 5;
  series = series * square + 1.0f / 3;
  return 2.0f * ratio + 2.0f * ratio * square * series;
}

MRCNN_INLINE double log_of_one_plus(double x) { return log1p(x); }

// What of a row that counts for nothing stands in the place of its logits: loss and derivative are exactly 0.
template <typename A>
constexpr A kIgnored = std::numeric_limits<A>::infinity();
template <typename A>
constexpr A kLargest = std::numeric_limits<A>::max();

template <typename A>
struct Terms {
  A right, wrong;  // p and q
  A penalty;       // log(1 + e^-s) = -log(p)
  A power;         // q^gamma

  MRCNN_INLINE A loss() const { return power * penalty; }
  MRCNN_INLINE A slope(A gamma) const { return power * (gamma * right * penalty + wrong); }  // minus the derivative
};

// kSquared: gamma is 2, as published.
template <bool kSquared, typename A>
MRCNN_INLINE Terms<A> terms_of(A margin, A gamma) {
  const A size = margin < 0 ? -margin : margin, small = exp_of_minus(size);
  const A larger = A(1) / (A(1) + small), smaller = small * larger, log = log_of_one_plus(small);
  Terms<A> terms;
  terms.right = margin < 0 ? smaller : larger;
  terms.wrong = margin < 0 ? larger : smaller;
  terms.penalty = margin < 0 ? size + log : log;
  if constexpr (kSquared) {
    terms.power = terms.wrong * terms.wrong;
  } else {
    const A other = margin < 0 ? log : size + log;  // -log(q)
    terms.power = exp_of_minus(gamma * (other > kLargest<A> ? kLargest<A> : other));  // 0 times infinity is no number
  }
  return terms;
}

}  // namespace mrcnn::sigmoid_focal_loss
