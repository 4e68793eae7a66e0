"""The plain PyTorch kernels of ROIAlign and its gradient, and the checks of their arguments.

N images, C channels, H W, L levels, R rois.
"""

from __future__ import annotations

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

OP = "roi_align"
_MAX_GRID = 1 << 20  # as in the compiled kernel: bounds the samples of absurdly large boxes
_ROIS_PER_GROUP = 128  # bounds the memory of the plain kernel


def check_arguments(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> None:
    """Raise what `roi_align` documents for arguments that do not fit together."""
    num_maps = len(features)
    check_value(
        0 < num_maps == len(spatial_scales),
        OP,
        f"one spatial scale per feature map is needed, got {num_maps} maps and {len(spatial_scales)} scales",
    )
    check_value(
        len(output_size) == 2 and min(output_size) > 0,
        OP,
        f"output_size must be two positive numbers, got {list(output_size)}",
    )
    check_value(sampling_ratio >= 0, OP, f"sampling_ratio must be 0 or more, got {sampling_ratio}")
    finest = features[0]
    check_shape(finest, OP, "each feature map", ("N", "C", "H", "W"))
    check_dtype(finest, OP, "features", FLOATING)
    for feature in features:
        check_shape(feature, OP, "each feature map", (finest.shape[0], finest.shape[1], "H", "W"))
        check_value(feature.shape[2] > 0 and feature.shape[3] > 0, OP, f"H and W must be > 0, got {feature.shape}")
        check_dtype(feature, OP, "every feature map", (finest.dtype,))
        check_same_device(OP, rois=rois, features=feature)
    check_rois(rois, levels, num_maps, finest.dtype)


def check_rois(rois: Tensor, levels: Tensor | None, num_maps: int, dtype: torch.dtype) -> None:
    """Check rois [R, 5] and their levels [R] against the number of maps and the features' dtype."""
    check_shape(rois, OP, "rois", ("R", 5))
    check_dtype(rois, OP, "rois", (accumulate_dtype(dtype),))
    check_value(levels is not None or num_maps == 1, OP, f"levels are needed for {num_maps} feature maps")
    if levels is not None:
        check_shape(levels, OP, "levels", (rois.shape[0],))
        check_dtype(levels, OP, "levels", (torch.int64,))
        check_same_device(OP, rois=rois, levels=levels)


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
    check_arguments(features, rois, levels, output_size, spatial_scales, sampling_ratio)
    finest = features[0]
    check_batch_indices(OP, rois, finest.shape[0])
    bins = (output_size[0], output_size[1])
    output = empty_output(features, rois, bins).zero_()
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
    check_batch_indices(OP, rois, num_images)
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
    grads = empty_grads(grad, num_images, heights, widths, channels_last)
    for result, total in zip(grads, sums, strict=True):
        result.copy_(total.view(result.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2))
    return grads


def empty_output(features: Sequence[Tensor], rois: Tensor, bins: Sequence[int]) -> Tensor:
    """Uninitialised result [R, C, ph, pw] in the dtype and layout of the first feature map."""
    shape = (rois.shape[0], features[0].shape[1], bins[0], bins[1])
    layout = memory_format_of(features[0])
    return torch.empty(shape, dtype=features[0].dtype, device=rois.device, memory_format=layout)


def empty_grads(
    grad: Tensor, num_images: int, heights: Sequence[int], widths: Sequence[int], channels_last: bool
) -> list[Tensor]:
    """Uninitialised gradients [N, C, Hl, Wl] of the maps, in the dtype of ``grad`` [R, C, ph, pw]."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty(
            (num_images, grad.shape[1], height, width), dtype=grad.dtype, device=grad.device, memory_format=layout
        )
        for height, width in zip(heights, widths, strict=True)
    ]
