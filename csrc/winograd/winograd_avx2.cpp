// The kernels for processors with AVX2.
#include "winograd_cpu.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace mrcnn::winograd {

namespace {

struct Vector {
  using Register = __m256;
  static constexpr int64_t kLanes = 8, kRows = 6;

  static Register load(const float* place) { return _mm256_loadu_ps(place); }
  static void store(float* place, Register value) { _mm256_storeu_ps(place, value); }
  static Register broadcast(float value) { return _mm256_set1_ps(value); }
  static Register zero() { return _mm256_setzero_ps(); }
  static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register subtract(Register a, Register b) { return _mm256_sub_ps(a, b); }
  static Register multiply(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static Register maximum(Register a, Register b) { return _mm256_max_ps(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
  static Register where_positive(Register gate, Register value) {
    return _mm256_and_ps(_mm256_cmp_ps(gate, zero(), _CMP_NLE_UQ), value);
  }
};

}  // namespace

}  // namespace mrcnn::winograd

#include "winograd_kernels.h"

#pragma GCC pop_options

namespace mrcnn::winograd {

const Kernels* avx2_kernels() {
  static const bool there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return there ? &kKernels : nullptr;
}

}  // namespace mrcnn::winograd

#else

namespace mrcnn::winograd {

const Kernels* avx2_kernels() { return nullptr; }

}  // namespace mrcnn::winograd

#endif
