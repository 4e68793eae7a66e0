// Storage types of 16 bits and their conversion to and from float, free of branches so that loops over them vectorise.
// They share their bits with torch's Half and BFloat16. Sums are never kept in them. On a CUDA device the hardware
// converts, with the same results, but for the bits of NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace mrcnn {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

MRCNN_INLINE float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

MRCNN_INLINE uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

MRCNN_INLINE float load(float value) { return value; }
MRCNN_INLINE double load(double value) { return value; }
MRCNN_INLINE float load(BFloat16 value) { return float_from_bits(static_cast<uint32_t>(value.bits) << 16); }

#if defined(__CUDA_ARCH__)

MRCNN_INLINE float load(Half value) { return __half2float(__ushort_as_half(value.bits)); }

#else

MRCNN_INLINE float load(Half value) {
  const uint32_t magnitude = value.bits & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  // Exponent bias 127 - 15 = 112; infinity and NaN get the top exponent.
  const uint32_t normal = (magnitude << 13) + (112u << 23) + (magnitude >= 0x7c00u ? 112u << 23 : 0u);
  // A subnormal half is an integer multiple of 2^-24.
  const uint32_t subnormal = bits_from_float(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  return float_from_bits(sign | (magnitude < 0x0400u ? subnormal : normal));
}

#endif

MRCNN_INLINE void store(float value, float* destination) { *destination = value; }
MRCNN_INLINE void store(double value, double* destination) { *destination = value; }

#if defined(__CUDA_ARCH__)

MRCNN_INLINE void store(float value, BFloat16* destination) {
  destination->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

MRCNN_INLINE void store(float value, Half* destination) {
  destination->bits = __half_as_ushort(__float2half_rn(value));
}

#else

MRCNN_INLINE void store(float value, BFloat16* destination) {
  const uint32_t bits = bits_from_float(value);
  // Round to nearest, ties to even.
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  destination->bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

MRCNN_INLINE void store(float value, Half* destination) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  // Round to nearest, ties to even; a carry out of the largest finite half gives infinity.
  const uint32_t normal = (magnitude - (112u << 23) + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the spacing is 2^-24: adding 0.5, whose own spacing is 2^-24, rounds and leaves the result in the low
  // bits.
  const uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0.5f) - (126u << 23);
  uint32_t result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= (143u << 23) ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  destination->bits = static_cast<uint16_t>(sign | result);
}

#endif

// The type in which values of T are summed.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

}  // namespace mrcnn
