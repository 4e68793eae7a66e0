"""The package's own ops taken apart into PyTorch's: fixed shapes, no host reads, equal to the ops bit for bit.

B rows, K slots a row; N images, C channels, H W, L levels, R rois.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from maskrcnn_benchmark.ops._boxes import box_area


def batched_nms(boxes: Tensor, valid: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression in a loop over the slots of all rows at once; see `ops.batched_nms`."""
    slots = torch.arange(valid.shape[1], device=boxes.device)
    areas = box_area(boxes, offset)
    # No slot counts from here on, so that rows of few boxes take few steps.
    end = torch.where(valid.any(dim=0), slots + 1, 0).amax()

    def goes_on(slot: Tensor, keep: Tensor) -> Tensor:
        return slot < end

    def step(slot: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        one = boxes.index_select(1, slot.reshape(1))  # [B, 1, 4]
        sides = torch.minimum(one[..., 2:], boxes[..., 2:]) - torch.maximum(one[..., :2], boxes[..., :2]) + offset
        sides = sides.clamp(min=0)
        intersection = sides[..., 0] * sides[..., 1]
        union = areas.index_select(1, slot.reshape(1)) + areas - intersection
        iou = torch.where(union > 0, intersection / union, 0.0)
        kept = keep.index_select(1, slot.reshape(1))
        return slot + 1, keep & ~(kept & (iou > iou_threshold) & (slots > slot))

    start = torch.zeros((), dtype=torch.int64, device=boxes.device)
    _, keep = torch.while_loop(goes_on, step, (start, valid.clone()))
    return keep


def roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """Pool all rois from one table of the pixels of all maps; see `ops.roi_align`.

    Raises:
        ValueError: sampling_ratio is 0, which would make shapes depend on the boxes.
    """
    if sampling_ratio == 0:
        raise ValueError(
            "a portable program cannot adapt ROIAlign's sampling to the boxes (POOLER_SAMPLING_RATIO 0): set it to 2, "
            "or export in another format"
        )
    usable = rois.isfinite().all(dim=1) & (rois[:, 0] >= 0)
    scale = _choose(levels, spatial_scales, rois[:, 0])
    boxes = torch.where(usable[:, None], rois[:, 1:] * scale[:, None], 0.0)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    image = torch.where(usable, rois[:, 0], 0.0).to(torch.int64)
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    counts = [len(f) * h * w for f, h, w in zip(features, heights, widths, strict=True)]
    firsts = [sum(counts[:level]) for level in range(len(counts))]
    height, width, first = (_choose(levels, column, image) for column in (heights, widths, firsts))
    base = first + image * height * width
    pixels = torch.cat([f.permute(0, 2, 3, 1).flatten(0, 2) for f in features]).to(rois.dtype)
    ys = _Axis(boxes[:, 1], sides[:, 1] / output_size[0], output_size[0], height, sampling_ratio)
    xs = _Axis(boxes[:, 0], sides[:, 0] / output_size[1], output_size[1], width, sampling_ratio)
    total = rois.new_zeros((len(rois), *output_size, features[0].shape[1]))
    for y0, y1, wy0, wy1, inside_y in ys.samples(lambda t: t[:, :, None]):
        for x0, x1, wx0, wx1, inside_x in xs.samples(lambda t: t[:, None]):
            corners = [(y, wy, x, wx) for y, wy in ((y0, wy0), (y1, wy1)) for x, wx in ((x0, wx0), (x1, wx1))]
            sample = None
            for y, wy, x, wx in corners:
                value = pixels[base[:, None, None] + y * width[:, None, None] + x] * (wy * wx)[..., None]
                sample = value if sample is None else sample + value
            total = total + torch.where((inside_y & inside_x)[..., None], sample, 0.0)
    result = (total / sampling_ratio**2).permute(0, 3, 1, 2).to(features[0].dtype)
    return torch.where(usable[:, None, None, None], result, 0.0).contiguous()


def _choose(levels: Tensor | None, values: Sequence[float], like: Tensor) -> Tensor:
    """Return values[level] of each roi [R], in the dtype of ``like`` [R]."""
    chosen = torch.full_like(like, values[0])
    for level, value in enumerate(values[1:], start=1):
        chosen = torch.where(levels == level, torch.full_like(like, value), chosen)
    return chosen


class _Axis:
    """Sample positions of R rois along one axis, in bins of equal size.

    Args:
        start, bin_size: [R] feature pixels.
        bins: of each roi.
        extent: [R] pixels of the map along this axis.
        grid: samples a bin.
    """

    def __init__(self, start: Tensor, bin_size: Tensor, bins: int, extent: Tensor, grid: int) -> None:
        steps = torch.arange(bins, device=start.device, dtype=start.dtype)
        self.bin_starts = start[:, None] + steps * bin_size[:, None]
        self.bin_size, self.extent, self.grid = bin_size[:, None], extent[:, None], grid

    def samples(self, shape: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, ...]]:
        """Return for each sample of a bin: two pixels, their weights, and whether it counts; all shape([R, bins])."""
        return [tuple(shape(t) for t in self._sample(step)) for step in range(self.grid)]

    def _sample(self, step: int) -> tuple[Tensor, ...]:
        position = self.bin_starts + (step + 0.5) * self.bin_size / self.grid
        inside = (position >= -1) & (position <= self.extent)
        position = torch.where(inside, position, 0.0).clamp(min=0)
        low = torch.minimum(position.to(torch.int64), self.extent - 1)
        high_weight = torch.where(low == self.extent - 1, 0.0, position - low)
        return low, torch.minimum(low + 1, self.extent - 1), 1 - high_weight, high_weight, inside


_PORTABLE: dict[Any, Callable[..., Tensor]] = {
    torch.ops.mrcnn.batched_nms: batched_nms,
    torch.ops.mrcnn.roi_align: roi_align,
}


class PortableOps(TorchFunctionMode):
    """While it is entered, calls of the package's own ops run, and are traced, as the functions of this file.

    Raises:
        ValueError: an op is called that has no such form.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(func).startswith("mrcnn."):
            if func not in _PORTABLE:
                raise ValueError(f"the op {func} has no portable form: export this network in another format")
            func = _PORTABLE[func]
        return func(*args, **(kwargs or {}))
