"""Cityscapes in COCO's format: what tools/cityscapes/convert_cityscapes_to_coco.py writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from tqdm import tqdm

from maskrcnn_benchmark.data.datasets.cityscapes_ids import (
    EVALUATED,
    INSTANCES_PER_LABEL,
    LABEL_IDS,
    instances_of,
    read_instance_ids,
)
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

SUFFIX = "_gtFine_instanceIds.png"
CATEGORY_IDS = {name: number for number, name in enumerate(EVALUATED, start=1)}
_CATEGORY_OF_LABEL = {LABEL_IDS[name]: category for name, category in CATEGORY_IDS.items()}


def annotations_of(ids: np.ndarray, *, polygons: bool) -> list[dict[str, Any]]:
    """The objects of an instance image (integers [H, W]) as COCO annotations without ids.

    Args:
        ids: the instance image.
        polygons: write exact polygons; False: compressed RLE, a sixth of the size.
    """
    rows = []
    for value, (x1, y1, x2, y2), mask in instances_of(ids):
        category = _CATEGORY_OF_LABEL.get(value // INSTANCES_PER_LABEL)
        if category is None:
            continue
        segmentation: Any
        if polygons:
            segmentation = [(ring.astype(int) + np.array([x1, y1])).ravel().tolist() for ring in mask_to_polygons(mask)]
        else:
            rle = mask_utils.encode(np.asfortranarray(ids == value, dtype=np.uint8))
            segmentation = {"size": list(ids.shape), "counts": rle["counts"].decode()}
        box, area = [x1, y1, x2 - x1 + 1, y2 - y1 + 1], int(mask.sum())
        rows.append({"category_id": category, "bbox": box, "area": area, "segmentation": segmentation, "iscrowd": 0})
    return rows


def convert_split(folder: Path, *, polygons: bool) -> dict[str, Any]:
    """The content of one json.

    Args:
        folder: gtFine/<split>, with a folder for each city.
        polygons: see :func:`annotations_of`.

    Raises:
        FileNotFoundError: when there is no instance image.
        ValueError: when one is damaged.
    """
    files = sorted(folder.glob(f"*/*{SUFFIX}"))
    if not files:
        raise FileNotFoundError(f"there is no */*{SUFFIX} in {folder}; unpack gtFine_trainvaltest.zip there")
    images, annotations = [], []
    for image_id, path in enumerate(tqdm(files, desc=folder.name, disable=None, leave=False), start=1):
        ids = read_instance_ids(path)
        height, width = ids.shape
        stem = path.name.removesuffix(SUFFIX)
        images.append(
            {
                "id": image_id,
                "file_name": f"{stem}_leftImg8bit.png",
                "seg_file_name": path.name,
                "height": height,
                "width": width,
            }
        )
        for row in annotations_of(ids, polygons=polygons):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **row})
    categories = [{"id": number, "name": name} for name, number in CATEGORY_IDS.items()]
    return {"images": images, "categories": categories, "annotations": annotations}
