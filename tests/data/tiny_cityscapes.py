"""A Cityscapes tree of four small images: images, instance images and polygons of rectangles, one over the other."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 64, 96
LABEL_IDS = {"road": 7, "static": 4, "person": 24, "rider": 25, "car": 26, "bus": 28, "caravan": 29, "bicycle": 33}
# Label and corners of rectangles (x1, y1, x2, y2), inclusive; the later ones hide the earlier ones.
OBJECTS = {
    "bonn/bonn_000001_000019": [
        ("road", (0, 32, 95, 63)),
        ("car", (10, 20, 49, 49)),
        ("person", (25, 10, 34, 59)),  # parts the car in two
        ("cargroup", (60, 5, 90, 20)),
        ("caravan", (60, 30, 80, 50)),
        ("car", (84, 40, 95, 63)),
    ],
    "bonn/bonn_000000_000019": [("road", (0, 0, 95, 63)), ("static", (50, 0, 95, 40))],
    "aachen/aachen_000007_000019": [
        ("bicycle", (5, 30, 44, 60)),
        ("rider", (15, 20, 24, 40)),
        ("static", (70, 0, 95, 30)),
        ("bus", (0, 0, 60, 12)),
        ("person", (90, 60, 92, 62)),  # nine pixels
    ],
    "aachen/aachen_000008_000019": [("person", (40, 20, 59, 50)), ("license plate", (0, 0, 9, 9))],
}


def corners(box: tuple[int, int, int, int]) -> list[list[int]]:
    """The polygon of a rectangle, as Cityscapes draws it: through the outermost pixels."""
    x1, y1, x2, y2 = box
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def instance_image(place: str) -> np.ndarray:
    """What *_instanceIds.png holds, uint16 [HEIGHT, WIDTH]."""
    ids, seen = np.zeros((HEIGHT, WIDTH), dtype=np.uint16), Counter()
    for label, (x1, y1, x2, y2) in OBJECTS[place]:
        number = LABEL_IDS.get(label.removesuffix("group"))
        if number is None:
            continue
        value = number if number < 24 or label.endswith("group") else number * 1000 + seen[label]
        seen[label] += 1
        ids[y1 : y2 + 1, x1 : x2 + 1] = value
    return ids


def write_tiny_cityscapes(folder: Path, splits: tuple[str, ...] = ("train",)) -> Path:
    """Write leftImg8bit and gtFine; each split has all images. Returns ``folder``."""
    rng = np.random.default_rng(0)
    for split in splits:
        for place, objects in OBJECTS.items():
            image, annotation = (folder / kind / split / place for kind in ("leftImg8bit", "gtFine"))
            image.parent.mkdir(parents=True, exist_ok=True)
            annotation.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(f"{image}_leftImg8bit.png", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
            cv2.imwrite(f"{annotation}_gtFine_instanceIds.png", instance_image(place))
            cv2.imwrite(f"{annotation}_gtFine_labelIds.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
            content = {
                "imgHeight": HEIGHT,
                "imgWidth": WIDTH,
                "objects": [{"label": label, "polygon": corners(box)} for label, box in objects],
            }
            Path(f"{annotation}_gtFine_polygons.json").write_text(json.dumps(content))
    return folder
