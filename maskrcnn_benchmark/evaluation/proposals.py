"""Average recall of class-agnostic box proposals.

Recall is averaged over IoU thresholds 0.50 to 0.95, as in Hosang et al., "What makes for effective detection
proposals?", with one-to-one matching that serves the best covered ground truth first. Letters: G ground truths, R
proposals of one image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from .results import Predictions, by_index

# Limits of the published evaluation, in square pixels; both belong to the range.
AREA_RANGES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
    "96-128": (96.0**2, 128.0**2),
    "128-256": (128.0**2, 256.0**2),
    "256-512": (256.0**2, 512.0**2),
    "512-inf": (512.0**2, 1e10),
}
IOU_THRESHOLDS = np.arange(0.5, 0.951, 0.05)


@dataclass(frozen=True)
class ProposalRecall:
    """average_recall in 0..1 (-1 without ground truth), recalls [10] a threshold, the number of ground truths."""

    average_recall: float
    recalls: np.ndarray
    num_ground_truths: int


def evaluate_box_proposals(
    predictions: Predictions,
    dataset: Any,
    *,
    area: tuple[float, float] = AREA_RANGES["all"],
    limit: int | None = None,
) -> ProposalRecall:
    """Recall of the best `limit` proposals of each image.

    Args:
        predictions: BoxLists in network pixels with a field `objectness`, by data set index.
        dataset: has `coco`, `get_img_info(i)` and `id_to_img_map`.
        area: ground truths count when their annotated area in square pixels lies within; crowds never do.
        limit: proposals an image; None: all.
    """
    covered = [np.zeros(0)]
    for index, prediction in by_index(predictions).items():
        info = dataset.get_img_info(index)
        annotations = dataset.coco.imgToAnns[dataset.id_to_img_map[index]]
        kept = [a for a in annotations if not a.get("iscrowd", 0) and area[0] <= a["area"] <= area[1]]
        if not kept:
            continue
        order = prediction.get_field("objectness").argsort(descending=True, stable=True)[:limit]
        boxes = prediction[order].resize((info["width"], info["height"])).convert("xywh").bbox
        gt_boxes = np.array([a["bbox"] for a in kept], dtype=np.float64)
        covered.append(best_one_to_one_ious(gt_boxes, boxes.cpu().numpy().astype(np.float64)))
    ious = np.concatenate(covered)
    if not len(ious):
        return ProposalRecall(-1.0, np.zeros(len(IOU_THRESHOLDS)), 0)
    recalls = (ious[:, None] >= IOU_THRESHOLDS).mean(axis=0)
    return ProposalRecall(float(recalls.mean()), recalls, len(ious))


def best_one_to_one_ious(gt_boxes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of each ground truth with the proposal it is given, float64 [G]; 0 for those left over.

    Pairs are made greedily: the ground truth whose best free proposal covers it best goes first.

    Args:
        gt_boxes: float64 [G, 4] as x, y, width, height.
        boxes: float64 [R, 4] in the same form.
    """
    result = np.zeros(len(gt_boxes))
    if not len(boxes) or not len(gt_boxes):
        return result
    overlaps = np.asarray(mask_utils.iou(boxes, gt_boxes, [0] * len(gt_boxes)))  # [R, G]
    for _ in range(min(overlaps.shape)):
        box, gt = np.unravel_index(overlaps.argmax(), overlaps.shape)
        if overlaps[box, gt] < 0:
            break
        result[gt] = overlaps[box, gt]
        overlaps[box, :] = -1
        overlaps[:, gt] = -1
    return result
