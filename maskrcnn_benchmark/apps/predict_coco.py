"""Predictions on pictures as COCO annotations. Letters: R detections, H W the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pycocotools import mask as mask_utils
from torch import Tensor

from maskrcnn_benchmark.apps.categories import Category
from maskrcnn_benchmark.structures.bounding_box import BoxList


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
