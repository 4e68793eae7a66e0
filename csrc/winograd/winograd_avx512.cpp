// The kernels for processors with AVX-512.
#include "winograd_cpu.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,fma")

namespace mrcnn::winograd {

namespace {

struct Vector {
  using Register = __m512;
  static constexpr int64_t kLanes = 16, kRows = 14;

  static Register load(const float* place) { return _mm512_loadu_ps(place); }
  static void store(float* place, Register value) { _mm512_storeu_ps(place, value); }
  static Register broadcast(float value) { return _mm512_set1_ps(value); }
  static Register zero() { return _mm512_setzero_ps(); }
  static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register subtract(Register a, Register b) { return _mm512_sub_ps(a, b); }
  static Register multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
  static Register maximum(Register a, Register b) { return _mm512_maskz_max_ps(0xffff, a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
  static Register where_positive(Register gate, Register value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(gate, zero(), _CMP_NLE_UQ), value);
  }
};

}  // namespace

}  // namespace mrcnn::winograd

#include "winograd_kernels.h"

#pragma GCC pop_options

namespace mrcnn::winograd {

const Kernels* avx512_kernels() {
  static const bool there = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
  return there ? &kKernels : nullptr;
}

}  // namespace mrcnn::winograd

#else

namespace mrcnn::winograd {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace mrcnn::winograd

#endif
