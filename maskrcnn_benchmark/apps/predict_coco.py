"""Predictions on pictures as COCO annotations. Letters: R detections, H W the picture."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from pycocotools import mask as mask_utils
from torch import Tensor

from maskrcnn_benchmark.apps.categories import Category
from maskrcnn_benchmark.structures.bounding_box import BoxList


class CocoWriter:
    """A COCO file that grows picture by picture, however many there are.

    Args:
        file: open for writing text.
        categories: of the labels 1..K.
    """

    def __init__(self, file: IO[str], categories: Sequence[Category]) -> None:
        self._file = file
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._num_annotations = 0
        file.write('{"annotations": [')

    def add(self, prediction: BoxList, **picture: Any) -> None:
        """Append a picture with its detections.

        Args:
            prediction: of ``Predictor``, in the picture's pixels.
            picture: further entries of its record, such as file_name.
        """
        width, height = prediction.size
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, **picture, "height": height, "width": width})
        first_id = self._num_annotations + 1
        for annotation in coco_annotations(prediction, self._categories, image_id=image_id, first_id=first_id):
            self._file.write((",\n" if self._num_annotations else "\n") + json.dumps(annotation))
            self._num_annotations += 1

    def finish(self) -> None:
        """Write pictures and categories."""
        categories = [{"id": c.id, "name": c.name, "supercategory": ""} for c in self._categories]
        self._file.write(f'],\n"images": {json.dumps(self._images)},\n"categories": {json.dumps(categories)}}}\n')


@contextlib.contextmanager
def coco_writer(path: Path, categories: Sequence[Category]) -> Iterator[CocoWriter]:
    """Write a COCO file beside ``path`` and rename it when it is whole; an error leaves what was there before."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            writer = CocoWriter(file, categories)
            yield writer
            writer.finish()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def coco_annotations(
    prediction: BoxList, categories: Sequence[Category], *, image_id: int, first_id: int = 1
) -> list[dict]:
    """Detections as COCO annotations with a score; masks as compressed RLE, keypoints as [x, y, 1, ...].

    Args:
        prediction: of `Predictor`, in the picture's pixels.
        categories: of the labels 1..K.
        image_id: of the picture.
        first_id: of the annotations, which are numbered from it on.
    """
    boxes, masks = prediction.convert("xywh").bbox.tolist(), masks_of(prediction)
    keypoints = prediction.get_field("keypoints").keypoints if prediction.has_field("keypoints") else None
    annotations = []
    for index, (label, score) in enumerate(labels_and_scores(prediction)):
        annotation = {
            "id": first_id + index,
            "image_id": image_id,
            "category_id": categories[label - 1].id,
            "bbox": boxes[index],
            "area": boxes[index][2] * boxes[index][3],
            "iscrowd": 0,
            "score": score,
        }
        if masks is not None:
            rle = mask_utils.encode(np.asfortranarray(masks[index], dtype=np.uint8))
            annotation["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
            annotation["area"] = int(mask_utils.area(rle))
        if keypoints is not None:
            annotation["keypoints"] = keypoints[index].flatten().tolist()
            annotation["num_keypoints"] = keypoints.shape[1]
        annotations.append(annotation)
    return annotations


def labels_and_scores(prediction: BoxList) -> Iterator[tuple[int, float]]:
    """Pairs of label and score of a prediction."""
    return zip(prediction.get_field("labels").tolist(), prediction.get_field("scores").tolist(), strict=True)


def masks_of(prediction: BoxList) -> np.ndarray | None:
    """Masks bool [R, H, W] of a prediction in picture pixels; None when it has none."""
    if not prediction.has_field("mask"):
        return None
    masks: Tensor = prediction.get_field("mask")[:, 0]
    return (masks if masks.dtype == torch.bool else masks > 127).numpy()
