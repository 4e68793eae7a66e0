"""Pooling of boxes from a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.structures.bounding_box import BoxList


def boxes_to_rois(boxes: Tensor, valid: Tensor) -> Tensor:
    """Flatten boxes [N, R, 4] to rois [N * R, 5]; the batch index of an invalid slot is -1."""
    image_index = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(valid)
    index = torch.where(valid, image_index, -1).to(boxes.dtype)
    return torch.cat((index[..., None], boxes), dim=-1).flatten(0, 1)


def boxlists_to_rois(boxlists: Sequence[BoxList]) -> Tensor:
    """Concatenate the boxes of one BoxList an image to rois [R, 5]."""
    return torch.cat([nn.functional.pad(b.bbox, (1, 0), value=i) for i, b in enumerate(boxlists)])


class Pooler(nn.Module):
    """ROIAlign over all levels of a pyramid in one call; the level follows from the box's area.

    Source: Lin et al., Feature Pyramid Networks (2017), equation 1.

    Args:
        output_size: (height, width) of a pooled box.
        scales: feature pixels per image pixel, one for each level that is used.
        sampling_ratio: samples per bin and axis; 0 adapts to the size of the box.
    """

    def __init__(self, output_size: int | tuple[int, int], scales: Sequence[float], sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.scales = tuple(scales)
        self.sampling_ratio = sampling_ratio

    def forward(self, features: Sequence[Tensor], boxes: Tensor | Sequence[BoxList]) -> Tensor:
        """Return [R, C, ph, pw].

        Args:
            features: pyramid levels [N, C, H, W]; levels beyond the scales are not used.
            boxes: rois [R, 5] (batch index, x1, y1, x2, y2), or one BoxList an image.
        """
        if not isinstance(boxes, Tensor):
            boxes = boxlists_to_rois(boxes)
        return ops.roi_align(
            features[: len(self.scales)],
            boxes,
            output_size=self.output_size,
            spatial_scales=self.scales,
            sampling_ratio=self.sampling_ratio,
        )
