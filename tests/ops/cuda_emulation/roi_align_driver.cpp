// The launchers of ROIAlign's kernels for ctypes, one of each for every dtype. All pointers are the host's. sizes holds
// R, N, C, ph, pw, the sampling ratio, L, and H and W of each level; maps beyond L are null.
#include "../../../csrc/roi_align/roi_align_cuda.h"

namespace {

using namespace mrcnn::roi_align::cuda;

template <typename A>
Problem<A> problem(const A* rois, const int64_t* levels, const int64_t* sizes, const double* scales) {
  const auto size = [sizes](int index) { return static_cast<int>(sizes[index]); };
  Problem<A> result{rois, levels, sizes[0], size(1), size(2), size(3), size(4), size(5), size(6), {}};
  for (int level = 0; level < result.num_levels; ++level) {
    result.levels[level] = {size(7 + 2 * level), size(8 + 2 * level), static_cast<A>(scales[level])};
  }
  return result;
}

}  // namespace

#define ROIS const A *rois, const int64_t *levels, const int64_t *sizes, const double *scales
#define MAPS(type) type *finest, type *fine, type *coarse, type *coarsest
#define DEFINE(name, T, A_)                                                                                            \
  namespace name {                                                                                                     \
  using A = A_;                                                                                                        \
  extern "C" int forward_##name(ROIS, MAPS(const T), int64_t channels_last, T* output) {                               \
    return forward(problem(rois, levels, sizes, scales), {{finest, fine, coarse, coarsest}}, channels_last != 0,       \
                   output, nullptr);                                                                                   \
  }                                                                                                                    \
  extern "C" int backward_atomic_##name(ROIS, MAPS(A), const T* grad) {                                                \
    return backward_atomic(problem(rois, levels, sizes, scales), grad, {{finest, fine, coarse, coarsest}}, nullptr);   \
  }                                                                                                                    \
  extern "C" int backward_in_order_##name(ROIS, MAPS(T), const T* grad, void* workspace) {                             \
    return backward_in_order(problem(rois, levels, sizes, scales), grad, {{finest, fine, coarse, coarsest}},           \
                             workspace, nullptr);                                                                      \
  }                                                                                                                    \
  extern "C" int workspace_##name(ROIS) {                                                                              \
    return static_cast<int>(workspace_bytes(problem(rois, levels, sizes, scales)));                                    \
  }                                                                                                                    \
  }

DEFINE(float32, float, float)
DEFINE(float64, double, double)
DEFINE(float16, mrcnn::Half, float)
DEFINE(bfloat16, mrcnn::BFloat16, float)
