"""What the annotation file of one image says, whatever its format: objects by the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# Points further out than this many pixels are a mistake of units, not of a hand.
_FARTHEST = 1e6


@dataclass
class AnnotatedObject:
    """One object.

    Attributes:
        name: of its class.
        box: x, y, width, height in pixels, float32 [4].
        rings: its polygons, each float32 [V, 2] with three vertices or more; None: annotated by its box alone.
        is_ignored: training leaves it out, and evaluation counts it neither as found nor as missed.
    """

    name: str
    box: np.ndarray
    rings: list[np.ndarray] | None = None
    is_ignored: bool = False


@dataclass
class AnnotatedImage:
    """Size and objects of one image, and what is wrong with them.

    Attributes:
        size: (height, width).
        objects: those that can be read.
        errors: sentences that name file and object; a run stops at the first.
        warnings: sentences on what is left out or taken in another way than it stands there.
    """

    size: tuple[int, int]
    objects: list[AnnotatedObject] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def points_of(values: object) -> np.ndarray:
    """A list of points [[x, y], ...] as float32 [V, 2].

    Raises:
        ValueError: when it is not one, or a number is not finite or beyond a million.
    """
    try:
        points = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"its points must be pairs of numbers, got {str(values)[:60]}") from None
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"its points must be pairs of numbers [x, y], got {str(values)[:60]}")
    if not (np.abs(points) < _FARTHEST).all():  # also where one is not a number
        raise ValueError(f"its points must be finite and within a million pixels, got {str(values)[:60]}")
    return points.astype(np.float32)


def box_around(rings: Sequence[np.ndarray]) -> np.ndarray:
    """x, y, width, height, float32 [4], of the box around some points, float32 [V, 2] each."""
    points = np.concatenate(rings)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low]).astype(np.float32)


def corners_of(box: np.ndarray) -> np.ndarray:
    """The polygon float32 [4, 2] of a box x, y, width, height."""
    x, y, width, height = box.tolist()
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], dtype=np.float32)
