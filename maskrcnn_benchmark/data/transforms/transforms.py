"""The steps of a transform, and all in turn. Images are OpenCV's: uint8 [H, W, 3], BGR; sizes are (height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey, keyed_uniform
from maskrcnn_benchmark.data.transforms.colour import ColourJitter
from maskrcnn_benchmark.data.transforms.normalize import Normalize

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

    def new_size(self, size: tuple[int, int], draw: float) -> tuple[int, int]:
        """The (height, width) to which an image of (height, width) ``size`` is scaled."""
        min_size = self.min_sizes[int(draw * len(self.min_sizes))]
        return resized_size(size, min_size=min_size, max_size=self.max_size)

    def __call__(
        self, image: np.ndarray, targets: ImageTargets | None, draw: float
    ) -> tuple[np.ndarray, ImageTargets | None]:
        """Scale an image and its objects; ``draw`` in [0, 1) chooses among the sizes."""
        height, width = self.new_size(image.shape[:2], draw)
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

    def happens(self, draw: float) -> bool:
        """Whether an image is mirrored."""
        return draw < self.probability

    def flip_targets(self, targets: ImageTargets) -> ImageTargets:
        """The objects of the mirror image."""
        return targets.flip_top_bottom() if self.vertical else targets.flip_left_right()

    def __call__(
        self, image: np.ndarray, targets: ImageTargets | None, draw: float
    ) -> tuple[np.ndarray, ImageTargets | None]:
        """Mirror when ``draw`` in [0, 1) lies below the probability."""
        if not self.happens(draw):
            return image, targets
        image = cv2.flip(image, 0 if self.vertical else 1)
        return image, self.flip_targets(targets) if targets is not None else None


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
        """Everything but the normalisation."""
        draws = self._draws(key)
        num_steps = len(self.geometry)
        if self.colour:
            image = self.colour(image, draws[num_steps:])
        for transform, draw in zip(self.geometry, draws[:num_steps], strict=True):
            image, targets = transform(image, targets, draw)
        return image, targets

    def transform_targets(self, targets: ImageTargets, key: SampleKey) -> tuple[ImageTargets, tuple[bool, bool]]:
        """What `transform_pixels` does to the objects of an image whose pixels come later.

        Returns:
            The objects, with the size to which the image is scaled, and whether it is then mirrored left to right and
            top to bottom.
        """
        mirrored = [False, False]
        for transform, draw in zip(self.geometry, self._draws(key), strict=False):
            if isinstance(transform, Resize):
                targets = targets.resize(transform.new_size(targets.image_size, draw))
            elif transform.happens(draw):
                targets = transform.flip_targets(targets)
                mirrored[transform.vertical] ^= True
        return targets, (mirrored[0], mirrored[1])

    @property
    def only_moves(self) -> bool:
        """Whether `transform_targets` tells all: one resize, if any, then flips, no colours, no steps of one's own."""
        first, others = self.geometry[:1], self.geometry[1:]
        usual = all(type(step) in (Resize, Flip) for step in first) and all(type(step) is Flip for step in others)
        return usual and not self.colour and type(self).transform_pixels is Compose.transform_pixels

    def _draws(self, key: SampleKey) -> list[float]:
        """The random numbers of a sample: one a step, then those of the colours."""
        count = len(self.geometry) + (self.colour.num_draws if self.colour else 0)
        return keyed_uniform(self.seed, *key, count=count).tolist()

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
