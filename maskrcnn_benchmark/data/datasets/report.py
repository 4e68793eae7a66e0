"""What a check of a data set finds: counts, sizes, classes, and faults with the names of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.image_io import read_image

Progress = Callable[[Iterable[Any]], Iterable[Any]]

# COCO's limits between small, medium and large objects, side of a square in pixels.
SMALL, LARGE = 32, 96
_TINY = 1.0  # square pixels


@dataclass
class DataReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        counts: what there is, by a word for it.
        objects: objects by class name, in the order of the labels.
        image_sizes: (height, width) of each image.
        object_sizes: (height, width) of the box of each object.
        errors: faults that stop a run.
        warnings: what training leaves out or takes in another way than it stands there.
    """

    counts: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)
    object_sizes: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def size_lines(self) -> list[str]:
        """Sizes of images and objects in sentences."""
        lines = []
        for what, sizes in (("images", self.image_sizes), ("objects", self.object_sizes)):
            if sizes:
                heights, widths = np.array(sizes, dtype=np.float64).T
                low, middle, high = (f"{f(widths):.0f}x{f(heights):.0f}" for f in (np.min, np.median, np.max))
                lines.append(f"{what}: width x height from {low} to {high}, median {middle}")
        if self.object_sizes:
            sides = np.sqrt(np.maximum(np.array(self.object_sizes), 0).prod(axis=1))
            small, large = int((sides < SMALL).sum()), int((sides >= LARGE).sum())
            medium = len(sides) - small - large
            lines.append(f"objects: {small} small (below {SMALL}x{SMALL}), {medium} medium, {large} large")
        return lines


def faults_of_image(path: Path, size: tuple[int, int] | None, *, decode: bool) -> list[str]:
    """Errors of an image file: missing, damaged, or of another size than the annotations say.

    Args:
        path: the file.
        size: (height, width) in the annotations; None where they say nothing.
        decode: False looks whether the file is there and no further.
    """
    if not path.is_file():
        return [f"there is no file {path}"]
    if not decode:
        return []
    try:
        height, width = read_image(path).shape[:2]
    except (OSError, ValueError) as error:
        return [str(error)]
    if size is not None and (height, width) != tuple(size):
        return [f"{path} is {width}x{height} pixels, the annotations say {size[1]}x{size[0]}"]
    return []


def warnings_of_object(
    who: str, box: Sequence[float], rings: Sequence[np.ndarray] | None, size: tuple[int, int] | None
) -> list[str]:
    """What training leaves out of an object, or cuts off.

    Args:
        who: begins each sentence: file and object.
        box: x, y, width, height in pixels.
        rings: polygons [V, 2], or None.
        size: (height, width) of the image, if known.
    """
    x, y, width, height = map(float, box)
    if min(width, height) <= 1:
        return [f"{who} is left out: its box is degenerate, {width} wide and {height} high"]
    warnings = []
    if size is not None:
        inside_x, inside_y = min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0)
        if min(inside_x, inside_y) <= 1:
            return [f"{who} is left out: its box lies outside the image of {size[1]}x{size[0]} pixels"]
        if inside_x < width - 1 or inside_y < height - 1:
            warnings.append(f"{who} reaches beyond the image of {size[1]}x{size[0]} pixels and is cut off")
    for ring in rings or ():
        area = _area_of(ring)
        if area < _TINY:
            what = "open: fewer than three points differ" if len(np.unique(ring, axis=0)) < 3 else "tiny"
            warnings.append(f"{who}: a polygon of {len(ring)} points is {what}, with {area:.2g} square pixels")
    return warnings


def _area_of(ring: np.ndarray) -> float:
    """Area of a polygon [V, 2] by the shoelace formula."""
    x, y = np.asarray(ring, dtype=np.float64).T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
