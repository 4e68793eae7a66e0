"""What the region proposal network hands to the heads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import BoxList


class Proposals(NamedTuple):
    """Boxes of a batch in a fixed number of slots an image, best first."""

    boxes: Tensor  # [N, R, 4] float32 xyxy pixels
    scores: Tensor  # [N, R] objectness probabilities
    valid: Tensor  # [N, R] bool; False marks an empty slot

    def to_boxlists(self, image_sizes: list[tuple[int, int]]) -> list[BoxList]:
        """Return one BoxList an image with field objectness, best first; empty slots are left out."""
        boxlists = []
        for boxes, scores, valid, (height, width) in zip(*self, image_sizes, strict=True):
            boxlist = BoxList(boxes[valid], (width, height), mode="xyxy")
            boxlist.add_field("objectness", scores[valid])
            boxlists.append(boxlist)
        return boxlists
