"""ROIAlign over all levels of a feature pyramid in one call.

The published form without half-pixel shift: a roi covers [x1, x2] * scale, at least one feature pixel, and each bin is
the mean of bilinear samples (He et al., Mask R-CNN, 2017, section 3). N images, C channels, H W, L levels, R rois.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._checks import (
    FLOATING,
    accumulate_dtype,
    check_batch_indices,
    check_dtype,
    check_same_device,
    check_shape,
    check_value,
    memory_format_of,
)
from maskrcnn_benchmark.ops._library import LIB, define_op

_OP = "roi_align"
_MAX_GRID = 1 << 20  # as in the compiled kernel: bounds the samples of absurdly large boxes
_ROIS_PER_GROUP = 128  # bounds the memory of the plain kernel


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
        ValueError: shapes that do not fit together, or on the CPU a batch index of an image that is not there.
        TypeError: a dtype that is not named above.
    """
    check_value(len(features) > 0, _OP, "at least one feature map is needed, got none")
    rois = rois.detach().to(accumulate_dtype(features[0].dtype))
    levels = None
    if len(features) > 1:
        check_shape(rois, _OP, "rois", ("R", 5))
        levels = roi_levels(rois, spatial_scales=spatial_scales)
    return torch.ops.mrcnn.roi_align(
        list(features), rois, levels, list(output_size), list(spatial_scales), sampling_ratio
    )


def _check(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> None:
    num_maps = len(features)
    check_value(
        0 < num_maps == len(spatial_scales),
        _OP,
        f"one spatial scale per feature map is needed, got {num_maps} maps and {len(spatial_scales)} scales",
    )
    check_value(
        len(output_size) == 2 and min(output_size) > 0,
        _OP,
        f"output_size must be two positive numbers, got {list(output_size)}",
    )
    check_value(sampling_ratio >= 0, _OP, f"sampling_ratio must be 0 or more, got {sampling_ratio}")
    finest = features[0]
    check_shape(finest, _OP, "each feature map", ("N", "C", "H", "W"))
    check_dtype(finest, _OP, "features", FLOATING)
    for feature in features:
        check_shape(feature, _OP, "each feature map", (finest.shape[0], finest.shape[1], "H", "W"))
        check_value(feature.shape[2] > 0 and feature.shape[3] > 0, _OP, f"H and W must be > 0, got {feature.shape}")
        check_dtype(feature, _OP, "every feature map", (finest.dtype,))
        check_same_device(_OP, rois=rois, features=feature)
    _check_rois(rois, levels, num_maps, finest.dtype)


def _check_rois(rois: Tensor, levels: Tensor | None, num_maps: int, dtype: torch.dtype) -> None:
    check_shape(rois, _OP, "rois", ("R", 5))
    check_dtype(rois, _OP, "rois", (accumulate_dtype(dtype),))
    check_value(levels is not None or num_maps == 1, _OP, f"levels are needed for {num_maps} feature maps")
    if levels is not None:
        check_shape(levels, _OP, "levels", (rois.shape[0],))
        check_dtype(levels, _OP, "levels", (torch.int64,))
        check_same_device(_OP, rois=rois, levels=levels)


@dataclass
class _AxisSamples:
    """The samples of G rois along one axis, each between two pixels. All tensors are [G, bins * grid]."""

    low: Tensor
    high: Tensor
    low_weight: Tensor
    high_weight: Tensor
    inside: Tensor

    def take(self, step: int, grid: int, shape: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Sample number ``step`` of every bin, shaped to broadcast over [G, ph, pw]."""
        values = (self.low, self.high, self.low_weight, self.high_weight, self.inside)
        return tuple(value[:, step::grid].reshape(shape) for value in values)


def _sample_axis(start: Tensor, bin_size: Tensor, bins: int, grid: int, extent: int) -> _AxisSamples:
    """Sample positions of rois that start at ``start`` [G] with bins of ``bin_size`` [G] feature pixels."""
    index = torch.arange(bins, device=start.device, dtype=start.dtype)
    step = torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5
    bin_starts = start[:, None] + index * bin_size[:, None]  # [G, bins]
    position = (bin_starts[:, :, None] + (step * bin_size[:, None] / grid)[:, None, :]).flatten(1)
    inside = (position >= -1) & (position <= extent)
    position = torch.where(inside, position, 0).clamp(min=0)
    low = position.to(torch.int64).clamp(max=extent - 1)
    high_weight = torch.where(low == extent - 1, 0, position - low)
    return _AxisSamples(low, (low + 1).clamp(max=extent - 1), 1 - high_weight, high_weight, inside)


@dataclass
class _Group:
    """Rois of one level and one sampling grid."""

    level: int
    rois: Tensor  # [G] indices
    grid: tuple[int, int]
    images: Tensor  # [G]
    ys: _AxisSamples
    xs: _AxisSamples

    def corners(self, bins: tuple[int, int], size: tuple[int, int]) -> Iterator[tuple[Tensor, list[Any]]]:
        """For each sample of a bin: whether it counts, and its four (flat pixel index, weight), all [G, ph, pw]."""
        height, width = size
        base = (self.images * (height * width))[:, None, None]
        for step_y in range(self.grid[0]):
            y0, y1, wy0, wy1, inside_y = self.ys.take(step_y, self.grid[0], (-1, bins[0], 1))
            for step_x in range(self.grid[1]):
                x0, x1, wx0, wx1, inside_x = self.xs.take(step_x, self.grid[1], (-1, 1, bins[1]))
                rows = ((y0, wy0), (y1, wy1))
                columns = ((x0, wx0), (x1, wx1))
                yield inside_y & inside_x, [(base + y * width + x, wy * wx) for y, wy in rows for x, wx in columns]


def _groups(
    rois: Tensor,
    levels: Tensor | None,
    sizes: Sequence[tuple[int, int]],
    bins: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Iterator[_Group]:
    """The rois that read something, in groups that can be computed at once."""
    usable = rois.isfinite().all(dim=1) & (rois[:, 0] >= 0)
    for level, (scale, (height, width)) in enumerate(zip(spatial_scales, sizes, strict=True)):
        chosen = usable if levels is None else usable & (levels == level)
        index = chosen.nonzero().squeeze(1)
        boxes = rois[index, 1:] * scale
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).flip(1)  # [G, 2] height, width
        bin_sizes = sides / sides.new_tensor(bins)
        grids = torch.full_like(bin_sizes, sampling_ratio) if sampling_ratio else bin_sizes.ceil()
        kinds, kind_of = grids.clamp(max=_MAX_GRID).to(torch.int64).unique(dim=0, return_inverse=True)
        for kind, (grid_y, grid_x) in enumerate(kinds.tolist()):
            for part in (kind_of == kind).nonzero().squeeze(1).split(_ROIS_PER_GROUP):
                ys = _sample_axis(boxes[part, 1], bin_sizes[part, 0], bins[0], grid_y, height)
                xs = _sample_axis(boxes[part, 0], bin_sizes[part, 1], bins[1], grid_x, width)
                images = rois[index[part], 0].to(torch.int64)
                yield _Group(level, index[part], (grid_y, grid_x), images, ys, xs)


def roi_align_reference(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """The op ``mrcnn::roi_align`` in plain PyTorch, on every device; equal to the compiled kernel bit for bit."""
    _check(features, rois, levels, output_size, spatial_scales, sampling_ratio)
    finest = features[0]
    check_batch_indices(_OP, rois, finest.shape[0])
    bins = (output_size[0], output_size[1])
    output = _empty_output(features, rois, bins).zero_()
    sizes = [(feature.shape[2], feature.shape[3]) for feature in features]
    pixels = [feature.permute(0, 2, 3, 1).flatten(0, 2).to(rois.dtype) for feature in features]  # [N * H * W, C]
    for group in _groups(rois, levels, sizes, bins, spatial_scales, sampling_ratio):
        total = rois.new_zeros((len(group.rois), *bins, finest.shape[1]))
        for inside, corners in group.corners(bins, sizes[group.level]):
            # The order of these sums is part of the result.
            values = [pixels[group.level][index] * weight[..., None] for index, weight in corners]
            sample = values[0] + values[1] + values[2] + values[3]
            total += torch.where(inside[..., None], sample, 0)
        output[group.rois] = (total / (group.grid[0] * group.grid[1])).permute(0, 3, 1, 2).to(output.dtype)
    return output


def roi_align_backward_reference(
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
    """The op ``mrcnn::roi_align_backward`` in plain PyTorch, on every device."""
    check_batch_indices(_OP, rois, num_images)
    channels, bins = grad.shape[1], (grad.shape[2], grad.shape[3])
    sizes = list(zip(heights, widths, strict=True))
    sums = [rois.new_zeros((num_images * height * width, channels)) for height, width in sizes]
    for group in _groups(rois, levels, sizes, bins, spatial_scales, sampling_ratio):
        count = group.grid[0] * group.grid[1]
        shares = grad[group.rois].to(rois.dtype).permute(0, 2, 3, 1) / count
        for inside, corners in group.corners(bins, sizes[group.level]):
            for index, weight in corners:
                part = torch.where(inside, weight, 0)[..., None] * shares
                sums[group.level].index_add_(0, index.flatten(), part.flatten(0, 2))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        total.view(num_images, height, width, channels)
        .permute(0, 3, 1, 2)
        .to(grad.dtype)
        .contiguous(memory_format=layout)
        for total, (height, width) in zip(sums, sizes, strict=True)
    ]


def _empty_output(features: Sequence[Tensor], rois: Tensor, bins: Sequence[int]) -> Tensor:
    shape = (rois.shape[0], features[0].shape[1], bins[0], bins[1])
    layout = memory_format_of(features[0])
    return torch.empty(shape, dtype=features[0].dtype, device=rois.device, memory_format=layout)


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
    _check(features, rois, levels, output_size, spatial_scales, sampling_ratio)
    return _empty_output(features, rois, output_size)


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
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty(
            (num_images, grad.shape[1], height, width), dtype=grad.dtype, device=grad.device, memory_format=layout
        )
        for height, width in zip(heights, widths, strict=True)
    ]


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
