"""What mining and inference answer. Letters: R detections, H W the image."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_coco import labels_and_scores, masks_of
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.annotations import class_name_key
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode


@dataclass(frozen=True)
class Detected:
    """One detection.

    Args:
        class_name: of the object.
        score: 0 to 1.
        box: x, y, width and height in whole pixels, within the image.
        mask: COCO's compressed RLE with text counts; None where it was not asked for.
    """

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    mask: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DetectedImage:
    """The detections of one candidate.

    Args:
        path: as in the index.
        size: height and width.
        objects: best first.
    """

    path: str
    size: tuple[int, int]
    objects: tuple[Detected, ...]

    @property
    def name(self) -> str:
        """The base name, by which the platform knows the image."""
        return os.path.basename(self.path)

    def only(self, class_names: Sequence[str]) -> DetectedImage:
        """The same without the objects of other classes, and with the names as they are spelled here."""
        names = {class_name_key(name): name for name in class_names}
        spelled = ((item, names.get(class_name_key(item.class_name))) for item in self.objects)
        return replace(self, objects=tuple(replace(item, class_name=name) for item, name in spelled if name))


def detected_image(path: str, found: BoxList, predictor: Predictor, *, with_masks: bool) -> DetectedImage:
    """What the platform wants to know of the detections of one image.

    Args:
        path: of the image.
        found: of `Predictor.detect`.
        predictor: knows the classes' names.
        with_masks: whether masks are told; a network that predicts none gives boxes as masks.
    """
    width, height = found.size
    masks = masks_of(found)
    objects = []
    for index, (corners, (label, score)) in enumerate(zip(found.bbox.tolist(), labels_and_scores(found), strict=True)):
        box = _whole_pixels(corners, width, height)
        mask = None
        if with_masks:
            pixels = masks[index] if masks is not None else _filled(box, height, width)
            if not pixels.any():  # nothing of it is left on the image
                continue
            rle = mask_utils.encode(np.asfortranarray(pixels, dtype=np.uint8))
            mask = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        objects.append(Detected(predictor.name_of(label), float(score), box, mask))
    return DetectedImage(path, (height, width), tuple(objects))


def write_detection(path: str, images: Sequence[DetectedImage], *, key: str) -> None:
    """Write infer-result.json of boxes.

    Args:
        path: of the file.
        images: all candidates.
        key: "boxes", or "annotations" before protocol 1.0.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        image.name: {
            key: [
                {
                    "class_name": item.class_name,
                    "score": item.score,
                    "box": dict(zip(("x", "y", "w", "h"), item.box, strict=True)),
                }
                for item in image.objects
            ]
        }
        for image in images
    }
    _write(path, json.dumps({"detection": content}))


def write_segmentation(path: str, images: Sequence[DetectedImage], class_names: Sequence[str]) -> None:
    """Write infer-result.json of masks: a COCO data set, with RLE alone, since of polygons only single ones are read.

    Args:
        path: of the file.
        images: all candidates, with masks.
        class_names: of the categories 1, 2, ...

    Raises:
        OSError: it cannot be written.
    """
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    entries, annotations = [], []
    for image_id, image in enumerate(images, start=1):
        height, width = image.size
        entries.append({"id": image_id, "file_name": image.name, "width": width, "height": height})
        annotations += [
            {
                "image_id": image_id,
                "category_id": ids[item.class_name],
                "iscrowd": 0,
                "bbox": [float(value) for value in item.box],
                "area": int(mask_utils.area(item.mask)),
                "segmentation": item.mask,
                "confidence": item.score,
            }
            for item in image.objects
        ]
    content = {
        "images": entries,
        "categories": [{"id": number, "name": name, "supercategory": "object"} for name, number in ids.items()],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, start=1)],
    }
    _write(path, json.dumps(content))


def write_mining(path: str, scores: Sequence[tuple[str, float]]) -> None:
    """Write result.tsv, the highest score first; of equal ones in the order given.

    Args:
        path: of the file.
        scores: image, as in the index, and its score, for all candidates.

    Raises:
        JobError: a score is no number. OSError: the file cannot be written.
    """
    for image, score in scores:
        if not math.isfinite(score):
            raise JobError(ReturnCode.OTHER, f"the score of {image} is {score}; this is a fault of the algorithm")
    lines = sorted(scores, key=lambda entry: -entry[1])
    _write(path, "".join(f"{image}\t{float(score)}\n" for image, score in lines))


def _whole_pixels(corners: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """x, y, width and height of a box of inclusive corners, of at least one pixel of the image."""
    x1, x2 = (min(max(round(value), 0), width - 1) for value in (corners[0], corners[2]))
    y1, y2 = (min(max(round(value), 0), height - 1) for value in (corners[1], corners[3]))
    return x1, y1, max(x2 - x1, 0) + 1, max(y2 - y1, 0) + 1


def _filled(box: Sequence[int], height: int, width: int) -> np.ndarray:
    x, y, box_width, box_height = box
    pixels = np.zeros((height, width), dtype=bool)
    pixels[y : y + box_height, x : x + box_width] = True
    return pixels


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))
