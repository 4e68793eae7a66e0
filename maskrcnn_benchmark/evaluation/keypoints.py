"""What pycocotools needs to evaluate keypoints of any data set. Letter: P keypoints of an object."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import Params

logger = logging.getLogger("maskrcnn_benchmark.inference")


def oks_sigmas_for(coco_gt: COCO, given: Sequence[float]) -> np.ndarray:
    """The sigmas of object keypoint similarity for a ground truth, float64 [P].

    Args:
        coco_gt: the ground truth.
        given: one a keypoint; empty: COCO's for its 17.

    Raises:
        ValueError: their number is not that of the keypoints.
    """
    sigmas = np.array(given, dtype=np.float64) if len(given) else Params("keypoints").kpt_oks_sigmas
    counts = {len(annotation.get("keypoints") or ()) // 3 for annotation in coco_gt.anns.values()} - {0}
    if not counts:
        logger.warning("The ground truth has no keypoints: figures of keypoints are -1")
    elif counts != {len(sigmas)}:
        raise ValueError(
            f"objects of the ground truth have {' or '.join(map(str, sorted(counts)))} keypoints, but "
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers (empty stands for COCO's 17); set one a keypoint"
        )
    return sigmas


def keypoint_ground_truth(coco_gt: COCO, num_keypoints: int) -> COCO:
    """The ground truth with the keys "keypoints" and "num_keypoints" in every annotation.

    Where nothing is missing it is the same object. An annotation without keypoints has P that are not labelled, so that
    COCO's evaluation neither asks for it nor counts detections of it as wrong.
    """
    annotations = coco_gt.dataset.get("annotations", [])
    if all("keypoints" in annotation and "num_keypoints" in annotation for annotation in annotations):
        return coco_gt
    completed = COCO()
    completed.dataset = {**coco_gt.dataset, "annotations": []}
    for annotation in annotations:
        points = annotation.get("keypoints") or [0] * (3 * num_keypoints)
        visible = sum(visibility > 0 for visibility in points[2::3])
        completed.dataset["annotations"].append({**annotation, "keypoints": points, "num_keypoints": visible})
    completed.createIndex()
    return completed


def extent_of(keypoints: Sequence[float]) -> list[float]:
    """The box [x, y, width, height] around predicted keypoints [x, y, v, ...], whose area says how large they are."""
    x, y = keypoints[0::3], keypoints[1::3]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]
