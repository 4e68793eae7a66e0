"""Anchor boxes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.utils import cat

_MAX_CACHED = 16  # 4 MiB each for 800x1344 pixels; shape buckets need one each


def generate_anchors(
    stride: int = 16,
    sizes: Sequence[float] = (32, 64, 128, 256, 512),
    aspect_ratios: Sequence[float] = (0.5, 1, 2),
) -> Tensor:
    """Return the anchors of one location, [A, 4] xyxy in pixels, ratios slowest.

    The cell of stride x stride pixels is reshaped to each ratio with whole-pixel sides and then scaled to each size,
    about its centre, in legacy coordinates (x2 = x1 + width - 1), as in the reference.

    Args:
        stride: pixels between neighbouring locations.
        sizes: side of a square anchor, in pixels.
        aspect_ratios: height / width.
    """
    scales = np.asarray(sizes, dtype=np.float64) / stride
    ratios = np.asarray(aspect_ratios, dtype=np.float64)
    widths = np.round(np.sqrt(stride * stride / ratios))
    heights = np.round(widths * ratios)
    widths = (widths[:, None] * scales).reshape(-1)
    heights = (heights[:, None] * scales).reshape(-1)
    centre = 0.5 * (stride - 1)
    half = 0.5 * np.stack([widths - 1, heights - 1], axis=1)
    return torch.from_numpy(np.concatenate([centre - half, centre + half], axis=1))


class BufferList(nn.Module):
    """Buffers under the names 0, 1, ..., as published checkpoints hold them."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        for i, buffer in enumerate(buffers):
            self.register_buffer(str(i), buffer)

    def __len__(self) -> int:
        return len(self._buffers)

    def __getitem__(self, index: int) -> Tensor:
        return list(self._buffers.values())[index]


class AnchorGenerator(nn.Module):
    """Anchors of every location of one or more feature maps.

    Args:
        sizes: for one stride, the sizes at each location; for several, one size (or tuple of sizes) a level.
        aspect_ratios: height / width.
        anchor_strides: pixels between locations, one a level.
        straddle_thresh: pixels by which a usable anchor may cross the image border; negative: any.

    Raises:
        ValueError: when several strides and sizes do not pair up.
    """

    def __init__(
        self,
        sizes: Sequence[Any] = (128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchor_strides: Sequence[int] = (8, 16, 32),
        straddle_thresh: int = 0,
    ) -> None:
        super().__init__()
        if len(anchor_strides) == 1:
            sizes = [sizes]
        elif len(anchor_strides) != len(sizes):
            raise ValueError(
                f"MODEL.RPN.ANCHOR_SIZES has {len(sizes)} entries and ANCHOR_STRIDE has {len(anchor_strides)}; "
                "a feature pyramid needs one size for each stride"
            )
        self.strides = tuple(anchor_strides)
        self.straddle_thresh = straddle_thresh
        cells = [
            generate_anchors(stride, size if isinstance(size, (tuple, list)) else (size,), aspect_ratios).float()
            for stride, size in zip(anchor_strides, sizes, strict=True)
        ]
        self.cell_anchors = BufferList(cells)
        self._cache: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()
        self.register_load_state_dict_post_hook(_forget_anchors)

    def num_anchors_per_location(self) -> list[int]:
        """Return the number of anchors of a location, for each level."""
        return [len(self.cell_anchors[i]) for i in range(len(self.cell_anchors))]

    def grid_anchors(self, grid_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return anchors [H_l * W_l * A, 4] a level, in the order rows, columns, anchors of a location."""
        anchors = []
        for i, ((height, width), stride) in enumerate(zip(grid_sizes, self.strides, strict=True)):
            cell = self.cell_anchors[i]
            y = torch.arange(height, device=cell.device, dtype=cell.dtype)[:, None].expand(height, width) * stride
            x = torch.arange(width, device=cell.device, dtype=cell.dtype)[None].expand(height, width) * stride
            shifts = torch.stack((x, y, x, y), dim=-1)
            anchors.append((shifts[:, :, None] + cell).reshape(-1, 4))
        return anchors

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return anchors [A_l, 4] for each feature map [N, C, H_l, W_l]; they are the same for every image."""
        return list(self.split(self.concatenated(features), features))

    def concatenated(self, features: Sequence[Tensor]) -> Tensor:
        """Return the anchors [A, 4] of all feature maps, one after the other, computed once for a shape and device."""
        grid_sizes = [tuple(feature.shape[-2:]) for feature in features]
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # sizes may be symbols, tensors only stand-ins
            return cat(self.grid_anchors(grid_sizes))
        cell = self.cell_anchors[0]
        key = (*grid_sizes, cell.device, cell.dtype)
        if key not in self._cache:
            # not inference tensors, even if an evaluation comes first: training saves them for its backward pass
            with torch.inference_mode(False), torch.no_grad():
                anchors = cat(self.grid_anchors(grid_sizes))
            if type(anchors) is not Tensor:  # a fake one, of somebody's trace
                return anchors
            self._cache[key] = anchors
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def split(self, rows: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Cut rows [A, ...] of all feature maps into those of each one."""
        counts = self.num_anchors_per_location()
        return rows.split([f.shape[-2] * f.shape[-1] * count for f, count in zip(features, counts, strict=True)])

    def visible(self, anchors: Tensor, image_sizes: Tensor) -> Tensor:
        """Return [N, A] bool: the anchor [A, 4] lies inside the image (height, width) [N, 2] up to straddle_thresh."""
        if self.straddle_thresh < 0:
            return anchors.new_ones((len(image_sizes), len(anchors)), dtype=torch.bool)
        margin = self.straddle_thresh
        height, width = image_sizes.to(anchors.dtype).unsqueeze(-1).unbind(1)
        x1, y1, x2, y2 = anchors.unbind(1)
        return (x1 >= -margin) & (y1 >= -margin) & (x2 < width + margin) & (y2 < height + margin)


def _forget_anchors(generator: AnchorGenerator, _: Any) -> None:
    """Runs after a state dict was loaded, which may hold other anchors of a location."""
    generator._cache.clear()


def make_anchor_generator(cfg: Any) -> AnchorGenerator:
    """Build the anchor generator that MODEL.RPN describes."""
    rpn = cfg.MODEL.RPN
    return AnchorGenerator(rpn.ANCHOR_SIZES, rpn.ASPECT_RATIOS, rpn.ANCHOR_STRIDE, rpn.STRADDLE_THRESH)


def make_anchor_generator_retinanet(cfg: Any) -> AnchorGenerator:
    """Build the anchor generator that MODEL.RETINANET describes: SCALES_PER_OCTAVE sizes a level and ratio."""
    retinanet = cfg.MODEL.RETINANET
    scales = [retinanet.OCTAVE ** (i / retinanet.SCALES_PER_OCTAVE) for i in range(retinanet.SCALES_PER_OCTAVE)]
    sizes = [tuple(size * scale for scale in scales) for size in retinanet.ANCHOR_SIZES]
    return AnchorGenerator(sizes, retinanet.ASPECT_RATIOS, retinanet.ANCHOR_STRIDES, retinanet.STRADDLE_THRESH)
