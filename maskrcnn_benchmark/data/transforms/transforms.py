"""The steps of a transform, and all in turn. Images are OpenCV's: uint8 [H, W, 3], BGR; sizes are (height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey, keyed_uniform
from maskrcnn_benchmark.data.transforms.colour import ColourJitter

_FIRST = SampleKey(epoch=0, index=0)


def resized_size(size: tuple[int, int], *, min_size: int, max_size: int) -> tuple[int, int]:
    """The size to which an image is scaled, its proportions kept.

    The shorter side becomes ``min_size``, less when the longer one would pass ``max_size``. The longer side is
    truncated, as in the published code (640x480 becomes 1066x800), where others round.

    Args:
        size: (height, width) of the image.
        min_size: wanted length of the shorter side.
        max_size: limit of the longer side; 0 is no limit.

    Returns:
        (height, width), each at least 1.
    """
    height, width = size
    shorter, longer = min(size), max(size)
    if max_size and longer / shorter * min_size > max_size:
        min_size = max(round(max_size * shorter / longer), 1)
    if shorter == min_size:
        return size
    if width < height:
        return int(min_size * height / width), min_size
    return min_size, int(min_size * width / height)


@dataclass(frozen=True)
class Resize:
    """Scale the shorter side to one of ``min_sizes``, bilinear; see :func:`resized_size`.

    Attributes:
        min_sizes: the lengths to choose from.
        max_size: limit of the longer side; 0 is no limit.
    """

    min_sizes: tuple[int, ...]
    max_size: int

    def __call__(
        self, image: np.ndarray, targets: ImageTargets | None, draw: float
    ) -> tuple[np.ndarray, ImageTargets | None]:
        """Scale an image and its objects; ``draw`` in [0, 1) chooses among the sizes."""
        min_size = self.min_sizes[int(draw * len(self.min_sizes))]
        height, width = resized_size(image.shape[:2], min_size=min_size, max_size=self.max_size)
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return image, targets.resize((height, width)) if targets is not None else None


@dataclass(frozen=True)
class Flip:
    """Mirror an image and its objects with probability ``probability``.

    Attributes:
        probability: in [0, 1].
        vertical: top to bottom instead of left to right.
    """

    probability: float
    vertical: bool = False

    def __call__(
        self, image: np.ndarray, targets: ImageTargets | None, draw: float
    ) -> tuple[np.ndarray, ImageTargets | None]:
        """Mirror when ``draw`` in [0, 1) lies below the probability."""
        if draw >= self.probability:
            return image, targets
        image = cv2.flip(image, 0 if self.vertical else 1)
        if targets is not None:
            targets = targets.flip_top_bottom() if self.vertical else targets.flip_left_right()
        return image, targets


class Normalize:
    """uint8 [H, W, 3] BGR to float32 [3, H, W], mean subtracted and divided by the deviation.

    Args:
        mean: of the three channels of the output.
        std: of the three channels of the output.
        to_bgr255: True keeps BGR in 0 .. 255; False gives RGB in 0 .. 1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, to_bgr255: bool = True) -> None:
        unit = np.float32(1.0 if to_bgr255 else 255.0)
        self.mean = np.asarray(mean, dtype=np.float32) * unit
        self.std = np.asarray(std, dtype=np.float32) * unit
        self.channels = (0, 1, 2) if to_bgr255 else (2, 1, 0)

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        """Normalise ``image`` [H, W, 3] into ``out`` float32 [3, H, W], which may be a part of a padded batch."""
        planes = cv2.split(image)  # NumPy reads whole planes twice as fast as every third byte
        for plane, channel in enumerate(self.channels):
            np.subtract(planes[channel], self.mean[plane], out=out[plane])
            if self.std[plane] != 1:
                out[plane] /= self.std[plane]

    def __call__(self, image: np.ndarray) -> Tensor:
        """Normalise ``image`` [H, W, 3] into a new tensor [3, H, W]."""
        out = torch.empty((3, *image.shape[:2]), dtype=torch.float32)
        self.write(image, out.numpy())
        return out


class Compose:
    """All that happens to a sample between the decoder and the batch.

    Args:
        geometry: called in turn with (image, targets, draw); every draw depends on the seed and the sample's key alone.
        normalize: the last step, from pixels to network input.
        seed: part of the key of all draws.
        colour: called first with (image, draws), on the pixels of the file; None leaves the colours.
    """

    def __init__(
        self,
        geometry: Sequence[Resize | Flip],
        normalize: Normalize,
        *,
        seed: int = 0,
        colour: ColourJitter | None = None,
    ) -> None:
        self.geometry = tuple(geometry)
        self.normalize = normalize
        self.seed = seed
        self.colour = colour

    def transform_pixels(
        self, image: np.ndarray, targets: ImageTargets | None, key: SampleKey
    ) -> tuple[np.ndarray, ImageTargets | None]:
        """Everything but the normalisation, which the collator does while it writes the batch."""
        num_steps, num_colour_draws = len(self.geometry), self.colour.num_draws if self.colour else 0
        draws = keyed_uniform(self.seed, *key, count=num_steps + num_colour_draws).tolist()
        if self.colour:
            image = self.colour(image, draws[num_steps:])
        for transform, draw in zip(self.geometry, draws[:num_steps], strict=True):
            image, targets = transform(image, targets, draw)
        return image, targets

    def __call__(
        self, image: np.ndarray, targets: ImageTargets | None, key: SampleKey = _FIRST
    ) -> tuple[Tensor, ImageTargets | None]:
        """Transform a sample.

        Args:
            image: uint8 [H, W, 3], BGR.
            targets: its objects; None when there are none to transform.
            key: what the random choices depend on.

        Returns:
            The network's input float32 [3, H', W'], and the objects in its pixels.
        """
        image, targets = self.transform_pixels(image, targets, key)
        return self.normalize(image), targets
