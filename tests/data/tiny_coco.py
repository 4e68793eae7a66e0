"""A COCO data set of six small images that holds one of everything that is unusual."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils

CATEGORIES = ({"id": 7, "name": "kite"}, {"id": 3, "name": "ring"}, {"id": 900, "name": "bar"})
# image id -> (height, width); the ids are in no order, 300 has no object
SIZES = {42: (60, 80), 5: (80, 60), 17: (60, 80), 300: (64, 64), 11: (50, 90), 8: (90, 50)}


@dataclass(frozen=True)
class TinyCoco:
    """Where the data set lies, and what its json holds."""

    root: Path
    ann_file: Path
    data: dict[str, Any]

    def custom(self, name: str) -> list[dict[str, str]]:
        """The entry for DATASETS.CUSTOM."""
        return [{"name": name, "img_dir": str(self.root), "ann_file": str(self.ann_file)}]


def ring_mask(height: int, width: int) -> np.ndarray:
    """A square of 30 x 30 pixels with a hole of 10 x 10, and a separate spot of 4 x 4; bool [height, width]."""
    mask = np.zeros((height, width), dtype=bool)
    mask[10:40, 15:45] = True
    mask[20:30, 25:35] = False
    mask[45:49, 50:54] = True
    return mask


def _box_of(mask: np.ndarray) -> list[float]:
    return mask_utils.toBbox(mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))).tolist()


def _uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    bounds = np.concatenate([[0], edges, [mask.size]] if mask[-1, -1] == 0 else [[0], edges])
    return {"size": list(mask.shape), "counts": np.diff(bounds).tolist()}


def _compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def tiny_annotations() -> dict[str, Any]:
    """The content of the json."""
    ring = ring_mask(60, 80)
    crowd = np.zeros((60, 80), dtype=bool)
    crowd[5:20, 50:75] = True
    triangles = [[5.0, 5.0, 25.5, 5.0, 15.0, 30.25], [30.0, 40.0, 50.0, 40.0, 40.0, 70.0]]
    rows = [
        # image, category, box x y w h, segmentation, crowd
        (42, 3, _box_of(ring), _uncompressed(ring), 0),
        (42, 7, _box_of(crowd), _uncompressed(crowd), 1),
        (5, 7, [5.0, 5.0, 45.0, 65.0], triangles, 0),
        (17, 3, _box_of(ring), _compressed(ring), 0),
        (17, 900, [50.5, 2.0, 20.0, 40.0], [[50.5, 2.0, 70.5, 2.0, 70.5, 42.0, 50.5, 42.0]], 0),
        # reaches beyond the right and the lower edge of its image of 90 x 50
        (11, 900, [60.0, 30.0, 50.0, 40.0], [[60.0, 30.0, 110.0, 30.0, 110.0, 70.0, 60.0, 70.0]], 0),
        # empty: one pixel wide
        (11, 7, [10.0, 10.0, 1.0, 20.0], [[10.0, 10.0, 11.0, 10.0, 11.0, 30.0]], 0),
        (8, 7, [4.0, 6.0, 30.0, 50.0], [[4.0, 6.0, 34.0, 6.0, 34.0, 56.0, 4.0, 56.0]], 0),
    ]
    return {
        "images": [
            {"id": image_id, "height": height, "width": width, "file_name": f"image_{image_id}.jpg"}
            for image_id, (height, width) in SIZES.items()
        ],
        "annotations": [
            {
                "id": 1000 + number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "segmentation": segmentation,
                "iscrowd": iscrowd,
            }
            for number, (image_id, category_id, bbox, segmentation, iscrowd) in enumerate(rows)
        ],
        "categories": [dict(category) for category in CATEGORIES],
    }


def write_tiny_coco(folder: Path) -> TinyCoco:
    """Write images and json below ``folder``.

    Category ids are 7, 3 and 900; one image has no object; among the objects are a crowd, an uncompressed and a
    compressed RLE with a hole, an object of two polygons, one that reaches beyond its image, and an empty box.
    """
    root = folder / "images"
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    data = tiny_annotations()
    for image in data["images"]:
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (image["width"], image["height"]), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / image["file_name"]), pixels)
    ann_file = folder / "annotations.json"
    ann_file.write_text(json.dumps(data))
    return TinyCoco(root, ann_file, data)
