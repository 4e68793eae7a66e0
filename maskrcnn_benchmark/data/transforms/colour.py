"""Random brightness, contrast, saturation and hue. Images are OpenCV's: uint8 [H, W, 3], BGR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True)
class ColourJitter:
    """Change the four properties by random factors, in random order.

    What each factor means is fixed by torchvision's ``ColorJitter``, which the original uses; levels are rounded where
    that truncates them, and hues turn by any angle where that has 255 steps. A property whose strength is 0 stays.

    Attributes:
        brightness, contrast, saturation: b >= 0; the factor lies in [max(0, 1 - b), 1 + b].
        hue: h in [0, 0.5]; hues turn by a part of the circle in [-h, h].

    Raises:
        ValueError: when a strength is out of range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    num_draws = 5  # the order, and a factor each

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"INPUT.{name.upper()} must be 0 or more, but is {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"INPUT.HUE must be 0 to 0.5, a part of the circle of hues, but is {self.hue}")

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    def __call__(self, image: np.ndarray, draws: Sequence[float]) -> np.ndarray:
        """Return the image with other colours.

        Args:
            image: uint8 [H, W, 3], BGR.
            draws: ``num_draws`` random numbers in [0, 1).
        """
        steps: list[tuple[Callable[[np.ndarray, float], np.ndarray], float]] = []
        scales = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
        )
        for (adjust, strength), draw in zip(scales, draws[1:4], strict=True):
            if strength:
                low = max(0.0, 1 - strength)
                steps.append((adjust, low + draw * (1 + strength - low)))
        if self.hue:
            steps.append((adjust_hue, (2 * draws[4] - 1) * self.hue))
        remaining = int(draws[0] * math.factorial(len(steps)))
        while steps:  # the digits of one number in mixed radix are a permutation
            remaining, position = divmod(remaining, len(steps))
            adjust, factor = steps.pop(position)
            image = adjust(image, factor)
        return image


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Every level times ``factor``: 0 is black, 1 the image."""
    return _mapped(image, factor * _LEVELS)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """The distance of every level from the mean grey level, times ``factor``: 0 is grey, 1 the image."""
    mean = math.floor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean() + 0.5)
    return _mapped(image, mean + factor * (_LEVELS - mean))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """The distance of every pixel from its own grey, times ``factor``: 0 is a grey image, 1 the image."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def adjust_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Hues turned by ``turn`` of the whole circle."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2HSV)  # hues in degrees
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    return np.rint(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)).clip(0, 255).astype(np.uint8)


def _mapped(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace level i of the image by levels[i], rounded and limited to 0 .. 255."""
    return cv2.LUT(image, np.rint(levels).clip(0, 255).astype(np.uint8))
