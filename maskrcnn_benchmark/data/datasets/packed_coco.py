"""pycocotools' view of packed annotations: the ground truth of data sets that have no COCO json."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations


def coco_of(packed: PackedAnnotations, labels: np.ndarray, categories: dict[int, str]) -> COCO:
    """All images and annotations as a COCO object.

    Args:
        packed: the annotations; ``iscrowd`` marks those that count neither as found nor as missed.
        labels: int64 [A], category id of each annotation.
        categories: name by id.
    """
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [_image(packed, row) for row in range(len(packed.image_ids))],
        "categories": [{"id": category_id, "name": name} for category_id, name in categories.items()],
        "annotations": _annotations(packed, labels),
    }
    coco.createIndex()
    return coco


def _image(packed: PackedAnnotations, row: int) -> dict[str, Any]:
    height, width = packed.image_sizes[row].tolist()
    return {"id": int(packed.image_ids[row]), "height": height, "width": width, "file_name": packed.file_names[row]}


def _annotations(packed: PackedAnnotations, labels: np.ndarray) -> list[dict[str, Any]]:
    images = np.repeat(packed.image_ids, np.diff(packed.annotation_offsets)).tolist()
    columns = zip(
        images, labels.tolist(), packed.boxes.tolist(), packed.areas.tolist(), packed.iscrowd.tolist(), strict=True
    )
    annotations = []
    # pycocotools takes the annotation id 0 for "no match".
    for number, (image_id, label, box, area, is_ignored) in enumerate(columns, start=1):
        annotation = {"id": number, "image_id": image_id, "category_id": label, "bbox": box, "area": area}
        annotation["iscrowd"] = int(is_ignored)
        rings = _rings(packed, number - 1)
        if rings:
            annotation["segmentation"] = rings
        annotations.append(annotation)
    return annotations


def _rings(packed: PackedAnnotations, annotation: int) -> list[list[float]]:
    first, last = packed.polygon_offsets[annotation : annotation + 2].tolist()
    bounds = packed.ring_offsets[first : last + 1].tolist()
    return [packed.coords[a:b].ravel().tolist() for a, b in itertools.pairwise(bounds)]
