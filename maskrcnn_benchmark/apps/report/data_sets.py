"""The part of a report that is about data: what the data sets hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_benchmark.config import CfgNode
from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.data.datasets.report import LARGE, SMALL
from maskrcnn_benchmark.data.open_dataset import make_opened_dataset
from maskrcnn_benchmark.data.synthetic import shapes_folder

MOST_IMAGES = 5000


@dataclass(frozen=True)
class DataFacts:
    """What a data set holds.

    Attributes:
        name: in the catalogue.
        num_images: all of them.
        num_counted: images that the other figures are of, evenly spread.
        objects: objects by class name, in the order of the labels.
        sizes: (word, objects) of COCO's three sizes.
        per_image: (objects, images) with that many.
        widths, heights: (least, median, most) pixels of the images.
    """

    name: str
    num_images: int
    num_counted: int
    objects: dict[str, int]
    sizes: list[tuple[str, int]]
    per_image: list[tuple[str, int]]
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]


def open_data_sets(cfg: CfgNode, names: Sequence[str], notes: list[str]) -> dict[str, Any]:
    """The data sets that are on this machine; of the others a note says what is missing. None is generated."""
    opened = {}
    for name in names:
        try:
            entry = resolve_dataset(cfg, name)
            if entry.factory == "shapes" and not shapes_folder(**entry.args).is_dir():
                raise FileNotFoundError(f"it is not in {shapes_folder(**entry.args)}")
            opened[name] = make_opened_dataset(cfg, name, is_train=False, transforms=None)
        except (OSError, KeyError, ValueError) as error:
            notes.append(f"The data set {name} is not shown: {error}.")
    return opened


def facts_of(name: str, dataset: Any) -> DataFacts:
    """Count what a ``DetectionDataset`` holds; at most ``MOST_IMAGES`` of its images are looked at."""
    total = len(dataset)
    chosen = range(total) if total <= MOST_IMAGES else [place * total // MOST_IMAGES for place in range(MOST_IMAGES)]
    labels: Counter[int] = Counter()
    per_image: Counter[int] = Counter()
    sides, shapes = [], []
    for index in chosen:
        targets = dataset.load_targets(index)
        labels.update(targets.labels.tolist())
        per_image[len(targets)] += 1
        extents = targets.boxes[:, 2:] - targets.boxes[:, :2] + 1
        sides.append(np.sqrt(np.maximum(extents, 0).prod(axis=1)))
        info = dataset.get_img_info(index)
        shapes.append((info["width"], info["height"]))
    side = np.concatenate(sides) if sides else np.zeros(0)
    small, large = int((side < SMALL).sum()), int((side >= LARGE).sum())
    widths, heights = np.array(shapes or [(0, 0)]).T
    return DataFacts(
        name=name,
        num_images=total,
        num_counted=len(chosen),
        objects={category: labels[label] for label, category in enumerate(dataset.categories, start=1)},
        sizes=[
            (f"small, below {SMALL}x{SMALL} pixels", small),
            ("medium", len(side) - small - large),
            (f"large, from {LARGE}x{LARGE} pixels", large),
        ],
        per_image=_binned(per_image),
        widths=_spread(widths),
        heights=_spread(heights),
    )


def _binned(per_image: Counter[int], most: int = 15) -> list[tuple[str, int]]:
    """Images by their number of objects, the crowded ones together."""
    last = min(max(per_image, default=0), most)
    bins = [(str(number), per_image[number]) for number in range(last)]
    rest = sum(images for number, images in per_image.items() if number >= last)
    return [*bins, (str(last) if max(per_image, default=0) == last else f"{last} and more", rest)]


def _spread(values: np.ndarray) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())
