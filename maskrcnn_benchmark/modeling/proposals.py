"""What the region proposal network hands to the heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from maskrcnn_benchmark.structures.bounding_box import BoxList


class Proposals(NamedTuple):
    """Boxes of a batch in a fixed number of slots an image, best first."""

    boxes: Tensor  # [N, R, 4] float32 xyxy pixels
    scores: Tensor  # [N, R] objectness probabilities
    valid: Tensor  # [N, R] bool; False marks an empty slot

    @classmethod
    def from_boxlists(cls, boxlists: Sequence[BoxList]) -> Proposals:
        """Pack BoxLists of any lengths; scores are 1 where a list has no field objectness."""
        boxes = [b.convert("xyxy").bbox for b in boxlists]
        scores = [b.get_field("objectness") if b.has_field("objectness") else b.bbox.new_ones(len(b)) for b in boxlists]
        valid = [torch.ones(len(b), dtype=torch.bool, device=b.bbox.device) for b in boxlists]
        return cls(*(pad_sequence(column, batch_first=True) for column in (boxes, scores, valid)))

    def to_boxlists(self, image_sizes: list[tuple[int, int]]) -> list[BoxList]:
        """Return one BoxList an image with field objectness, best first; empty slots are left out."""
        boxlists = []
        for boxes, scores, valid, (height, width) in zip(*self, image_sizes, strict=True):
            boxlist = BoxList(boxes[valid], (width, height), mode="xyxy")
            boxlist.add_field("objectness", scores[valid])
            boxlists.append(boxlist)
        return boxlists
