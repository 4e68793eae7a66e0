// How the kernels ask for vector code without raising the instruction set of the whole build, and for inlining.
//
// A function marked MRCNN_MULTIVERSION is compiled once for the baseline and once more for wider vectors; the loader
// picks one when the library is opened. GCC refuses the attribute on templates: mark a plain function and let it call
// templates marked MRCNN_INLINE, which are inlined into, and vectorised with, each version.
// The build sets -ffp-contract=off, so every version rounds alike: none of them fuses a product with a sum.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define MRCNN_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MRCNN_MULTIVERSION
#endif

#if defined(__CUDACC__)  // what is marked so serves kernels on both sides
#define MRCNN_INLINE __host__ __device__ __forceinline__
#define MRCNN_RESTRICT __restrict__
#elif defined(_MSC_VER)
#define MRCNN_INLINE __forceinline
#define MRCNN_RESTRICT __restrict
#else
#define MRCNN_INLINE inline __attribute__((always_inline))
#define MRCNN_RESTRICT __restrict__
#endif
