"""Images that are decoded and scaled where they are wanted, so that no pixel is written twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

_FLIP_CODES = {(True, False): 1, (False, True): 0, (True, True): -1}  # OpenCV's


@dataclass(frozen=True)
class PendingImage:
    """An image that is decoded, scaled and mirrored when its batch is written.

    Attributes:
        decode: makes its pixels, uint8 [H, W, 3].
        size: (height, width) to which it is scaled.
        mirrored: whether it is then mirrored left to right, and top to bottom.
    """

    decode: Callable[[], np.ndarray]
    size: tuple[int, int]
    mirrored: tuple[bool, bool]

    def write(self, out: np.ndarray) -> None:
        """Make the image in ``out``, uint8 [*size, 3], which may be a part of a larger array."""
        pixels = self.decode()
        if pixels.shape[:2] == self.size:
            out[:] = pixels
        else:
            scaled = cv2.resize(pixels, self.size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
            if scaled is not out:  # OpenCV takes other memory where the pixels have another type
                out[:] = scaled
        if self.mirrored in _FLIP_CODES:
            # In place, after scaling: a mirrored image would be scaled to other pixels, as OpenCV rounds.
            cv2.flip(out, _FLIP_CODES[self.mirrored], dst=out)
