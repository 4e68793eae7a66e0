"""Boxes to regression targets and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def _centres_and_sizes(boxes: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2] + offset
    return boxes[..., :2] + 0.5 * sizes, sizes


class BoxCoder:
    """The box parametrisation of R-CNN. Source: Girshick et al. (2014), appendix C.

    Args:
        weights: factors of (dx, dy, dw, dh).
        bbox_xform_clip: upper bound of dw and dh when decoding, so that exp() stays finite.
        offset: 1 for the legacy convention in which a box of one pixel has x2 = x1 and width 1.
    """

    def __init__(
        self,
        weights: Sequence[float],
        bbox_xform_clip: float = math.log(1000.0 / 16),
        *,
        offset: int = 1,
    ) -> None:
        self.weights = tuple(weights)
        self.bbox_xform_clip = bbox_xform_clip
        self.offset = offset

    def encode(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return codes [..., 4] that move proposals [..., 4] onto reference_boxes [..., 4]."""
        centres, sizes = _centres_and_sizes(proposals, self.offset)
        target_centres, target_sizes = _centres_and_sizes(reference_boxes, self.offset)
        shift = (target_centres - centres) / sizes
        return self._weighted(torch.cat((shift, torch.log(target_sizes / sizes)), dim=-1), torch.mul)

    def decode(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return boxes [..., 4 * c] from codes [..., 4 * c], c of them for each of boxes [..., 4].

        The computation runs in the dtype of boxes.
        """
        centres, sizes = _centres_and_sizes(boxes.unsqueeze(-2), self.offset)
        codes = self._weighted(rel_codes.to(boxes.dtype).unflatten(-1, (-1, 4)), torch.div)
        new_centres = codes[..., :2] * sizes + centres
        half_sizes = 0.5 * torch.exp(codes[..., 2:].clamp(max=self.bbox_xform_clip)) * sizes
        # x2 = centre + width / 2 - 1: the legacy convention counts both borders as inside
        return torch.cat((new_centres - half_sizes, new_centres + half_sizes - self.offset), dim=-1).flatten(-2)

    def _weighted(self, codes: Tensor, operation: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Return codes [..., 4] multiplied or divided by the weights, which stay numbers: no copy to the device."""
        if self.weights == (1, 1, 1, 1):
            return codes
        columns = zip(codes.unbind(-1), self.weights, strict=True)
        return torch.stack([operation(column, weight) for column, weight in columns], dim=-1)


def clip_boxes(boxes: Tensor, image_sizes: Tensor, *, offset: int = 1) -> Tensor:
    """Clamp boxes to their images.

    Args:
        boxes: [N, ..., 4] xyxy.
        image_sizes: [N, 2] (height, width).
    """
    bounds = (image_sizes.flip(1) - offset).repeat(1, 2).to(boxes.dtype)
    bounds = bounds.reshape(len(bounds), *[1] * (boxes.dim() - 2), 4)
    return torch.minimum(boxes.clamp(min=0), bounds)
