"""What the mining algorithms ask of a network, so that none of them needs to know one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor


class ImageDetections(NamedTuple):
    """The detections of one picture in any order. R detections, K classes, M the side of a mask."""

    boxes: np.ndarray  # float64 [R, 4], edges x1, y1, x2, y2 in the picture's pixels: a width is x2 - x1
    scores: np.ndarray  # float64 [R] in 0..1
    distributions: np.ndarray  # float64 [R, K + 1], probabilities of the background and the classes, or [R, 2]
    masks: np.ndarray | None = None  # float32 [R, M, M] probabilities within the boxes

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """A trained network as the algorithms see it. Pictures are uint8 [H, W, 3] in BGR, of any sizes."""

    def detect(self, images: Sequence[np.ndarray], *, masks: bool = False) -> list[ImageDetections]:
        """Detections of each picture above the confidence threshold; with ``masks``, their masks too."""

    def confidence_maps(self, images: Sequence[np.ndarray]) -> list[list[Tensor]]:
        """Logits of each picture: one map [K, A, h, w] a pyramid level, of the picture without padding.

        K is 1 where the network tells objects from background only, A the anchors of a place.
        """


def two_point(scores: np.ndarray) -> np.ndarray:
    """[R, 2] of scores [R]: the probability that a detection is none, and that it is one."""
    return np.stack([1.0 - scores, scores], axis=1)
