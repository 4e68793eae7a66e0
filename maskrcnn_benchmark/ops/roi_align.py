"""ROIAlign over all levels of a feature pyramid in one call.

The published form without half-pixel shift: a roi covers [x1, x2] * scale, at least one feature pixel, and each bin is
the mean of bilinear samples (He et al., Mask R-CNN, 2017, section 3). N images, C channels, H W, L levels, R rois.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._checks import (
    accumulate_dtype,
    check_shape,
    check_value,
    memory_format_of,
)
from maskrcnn_benchmark.ops._library import LIB, define_op
from maskrcnn_benchmark.ops._roi_align_plain import (
    OP,
    check_arguments,
    empty_grads,
    empty_output,
    roi_align_backward_reference,
    roi_align_reference,
)


def roi_levels(
    rois: Tensor,  # [R, 5] batch index, x1, y1, x2, y2
    *,
    spatial_scales: Sequence[float],
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Tensor:
    """The pyramid level each roi is pooled from: floor(4 + log2(sqrt(area) / 224)), as a 0-based index.

    Areas carry the legacy +1 on both sides. Source: Lin et al., Feature Pyramid Networks, 2017, equation 1, with the
    1e-6 that keeps exact powers of two on their level.

    Args:
        rois: inclusive xyxy pixels of the image, with the batch index in front.
        spatial_scales: feature pixels per image pixel of each level, finest first; powers of two.

    Returns:
        [R] int64 in [0, L); a roi of negative or undefined area gets level 0.
    """
    finest, coarsest = -math.log2(spatial_scales[0]), -math.log2(spatial_scales[-1])
    areas = (rois[:, 3] - rois[:, 1] + 1) * (rois[:, 4] - rois[:, 2] + 1)
    levels = torch.floor(canonical_level + torch.log2(areas.sqrt() / canonical_size + 1e-6))
    return (levels.nan_to_num(nan=finest).clamp(min=finest, max=coarsest) - finest).to(torch.int64)


def roi_align(
    features: Sequence[Tensor],  # L maps [N, C, Hl, Wl]
    rois: Tensor,  # [R, 5] batch index, x1, y1, x2, y2
    *,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """Pools each roi from the level that fits its size. Differentiable with respect to every feature map.

    On CUDA the gradients of a pixel are added in any order, or under ``torch.use_deterministic_algorithms`` in that of
    the rois.

    Args:
        features: one map per level, finest first; float32, float64, float16 or bfloat16, NCHW or channels_last. Sums
            run in float32 (float64 for float64). The layout of the first one holds for all and for the result.
        rois: inclusive xyxy pixels of the image. A negative batch index marks an empty slot, which gives zeros, as does
            a roi with a coordinate that is not finite. Rois get no gradient.
        output_size: (ph, pw) bins.
        spatial_scales: feature pixels per image pixel, one per map.
        sampling_ratio: samples per bin and axis; 0 takes one per feature pixel that a bin covers, rounded up.

    Returns:
        [R, C, ph, pw] in the dtype of the features.

    Raises:
        ValueError: shapes that do not fit together, or a batch index of an image that is not there. On CUDA a look at
            the indices would make the host wait: there such a roi counts as an empty slot.
        TypeError: a dtype that is not named above.
    """
    check_value(len(features) > 0, OP, "at least one feature map is needed, got none")
    rois = rois.detach().to(accumulate_dtype(features[0].dtype))
    levels = None
    if len(features) > 1:
        check_shape(rois, OP, "rois", ("R", 5))
        levels = roi_levels(rois, spatial_scales=spatial_scales)
    return torch.ops.mrcnn.roi_align(
        list(features), rois, levels, list(output_size), list(spatial_scales), sampling_ratio
    )


_FORWARD = define_op(
    "roi_align(Tensor[] features, Tensor rois, Tensor? levels, int[2] output_size, float[] spatial_scales, "
    "int sampling_ratio) -> Tensor",
    roi_align_reference,
)
_BACKWARD = define_op(
    "roi_align_backward(Tensor grad, Tensor rois, Tensor? levels, SymInt num_images, SymInt[] heights, "
    "SymInt[] widths, float[] spatial_scales, int sampling_ratio, bool channels_last) -> Tensor[]",
    roi_align_backward_reference,
)


@torch.library.register_fake(_FORWARD, lib=LIB)
def _fake_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    check_arguments(features, rois, levels, output_size, spatial_scales, sampling_ratio)
    return empty_output(features, rois, output_size)


@torch.library.register_fake(_BACKWARD, lib=LIB)
def _fake_backward(
    grad: Tensor,
    rois: Tensor,
    levels: Tensor | None,
    num_images: int,
    heights: Sequence[int],
    widths: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    channels_last: bool,
) -> list[Tensor]:
    return empty_grads(grad, num_images, heights, widths, channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, _, spatial_scales, sampling_ratio = inputs
    ctx.save_for_backward(rois, levels)
    ctx.sizes = (
        features[0].shape[0],
        [feature.shape[2] for feature in features],
        [feature.shape[3] for feature in features],
    )
    ctx.arguments = (spatial_scales, sampling_ratio, memory_format_of(features[0]) == torch.channels_last)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, levels = ctx.saved_tensors
    grads = torch.ops.mrcnn.roi_align_backward(grad, rois, levels, *ctx.sizes, *ctx.arguments)
    return grads, None, None, None, None, None


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context, lib=LIB)
