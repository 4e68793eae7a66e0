"""COCO evaluation of boxes, masks and keypoints: pycocotools computes, this module feeds it and keeps the figures."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .keypoints import extent_of, keypoint_ground_truth, oks_sigmas_for
from .proposals import AREA_RANGES, evaluate_box_proposals
from .results import Predictions, by_index, save_plain, write_results

logger = logging.getLogger("maskrcnn_benchmark.inference")

_AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_AR_NAMES = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_KEYPOINT_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
_PROPOSAL_LIMITS = (100, 1000)
_PROPOSAL_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}


class CocoResults:
    """Figures by task: `results["bbox"]["AP"]`. A figure not computed, or undefined for want of ground truth, is -1.

    Args:
        iou_types: any of "bbox", "segm", "keypoints" and "box_proposal".
    """

    METRICS = {
        "bbox": _AP_NAMES + _AR_NAMES,
        "segm": _AP_NAMES + _AR_NAMES,
        "keypoints": _KEYPOINT_NAMES,
        "box_proposal": tuple(f"AR{suffix}@{limit}" for limit in _PROPOSAL_LIMITS for suffix in _PROPOSAL_AREAS),
    }

    def __init__(self, *iou_types: str) -> None:
        for iou_type in iou_types:
            if iou_type not in self.METRICS:
                raise KeyError(f"unknown IoU type {iou_type!r}; known: {', '.join(self.METRICS)}")
        self.results = {iou_type: dict.fromkeys(self.METRICS[iou_type], -1.0) for iou_type in iou_types}

    def update(self, coco_eval: COCOeval) -> None:
        """Take over the figures of a summarised COCOeval."""
        iou_type = coco_eval.params.iouType
        self.results[iou_type].update(zip(self.METRICS[iou_type], map(float, coco_eval.stats), strict=True))

    def __repr__(self) -> str:
        lines = []
        for task, figures in self.results.items():
            lines.append(f"Task: {task}")
            lines.append(", ".join(figures))
            lines.append(", ".join(f"{value:.4f}" for value in figures.values()))
        return "\n".join(lines)


def evaluate(
    dataset: Any,
    predictions: Predictions,
    output_folder: str | os.PathLike[str] | None,
    *,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    expected_results: Iterable[Sequence] = (),
    expected_results_sigma_tol: float = 4,
    oks_sigmas: Sequence[float] = (),
) -> tuple[CocoResults, dict[str, list[dict]]]:
    """Evaluate predictions on a COCO-format data set.

    Args:
        dataset: has `coco` (pycocotools' COCO), `get_img_info(i)`, `id_to_img_map` and
            `contiguous_category_id_to_json_id`.
        predictions: BoxLists in network pixels, by data set index. When some images are missing, the figures are
            those of the others, and a warning says so.
        output_folder: receives bbox.json, segm.json, keypoints.json and coco_results.pth, or box_proposals.pth; None
            writes nothing.
        box_only: the BoxLists are proposals with a field `objectness`; average recall is computed.
        iou_types: "bbox", "segm", "keypoints"; evaluated and printed in this order.
        expected_results: see `check_expected_results`.
        expected_results_sigma_tol: see `check_expected_results`.
        oks_sigmas: see `evaluate_detections`.

    Returns:
        The figures, and the COCO result lists by IoU type (empty for proposals).
    """
    predictions = by_index(predictions)
    num_images = len(dataset.id_to_img_map)
    if len(predictions) < num_images:
        logger.warning("Only %d of %d images have predictions; the others are left out", len(predictions), num_images)
    if box_only:
        results, coco_results, file_name = _evaluate_proposals(dataset, predictions), {}, "box_proposals.pth"
    else:
        coco_results = write_results(dataset, predictions, output_folder, iou_types=iou_types)
        image_ids = [dataset.id_to_img_map[index] for index in predictions]
        results, file_name = CocoResults(*iou_types), "coco_results.pth"
        with contextlib.redirect_stdout(io.StringIO()):
            coco_gt = dataset.coco  # may be read from the file now
        for iou_type, detections in coco_results.items():
            results.update(
                evaluate_detections(coco_gt, detections, iou_type, image_ids=image_ids, oks_sigmas=oks_sigmas)
            )
    logger.info("%s", results)
    check_expected_results(results, expected_results, expected_results_sigma_tol)
    if output_folder is not None:
        save_plain(Path(output_folder, file_name), results.results)
    return results, coco_results


def evaluate_detections(
    coco_gt: COCO,
    detections: list[dict],
    iou_type: str,
    *,
    image_ids: Sequence[int] | None = None,
    oks_sigmas: Sequence[float] = (),
) -> COCOeval:
    """COCO's evaluation of a result list, which may be empty; prints the standard lines, twelve or (keypoints) ten.

    Args:
        coco_gt: the ground truth.
        detections: COCO results as in bbox.json, segm.json or keypoints.json.
        iou_type: "bbox", "segm" or "keypoints".
        image_ids: the images to evaluate on; None: all images of the ground truth.
        oks_sigmas: of "keypoints", how far annotators differ on each, in units of the object's size; empty: COCO's for
            its 17.

    Returns:
        The summarised COCOeval.

    Raises:
        ValueError: a detection names an image that the ground truth lacks, or the sigmas do not fit the keypoints.
    """
    # pycocotools reports progress on stdout; only its summary is part of this program's output.
    with contextlib.redirect_stdout(io.StringIO()):
        if iou_type == "keypoints":
            sigmas = oks_sigmas_for(coco_gt, oks_sigmas)
            coco_gt = keypoint_ground_truth(coco_gt, len(sigmas))
        coco_eval = COCOeval(coco_gt, _detections_as_coco(coco_gt, detections, iou_type), iou_type)
        if iou_type == "keypoints":
            coco_eval.params.kpt_oks_sigmas = sigmas
        if image_ids is not None:
            coco_eval.params.imgIds = list(image_ids)
        coco_eval.evaluate()
        coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


def check_expected_results(results: CocoResults, expected_results: Iterable[Sequence], sigma_tol: float = 4) -> bool:
    """Compare figures with expected ones and log PASS or FAIL for each; True when all pass.

    Args:
        results: the figures.
        expected_results: entries (task, metric, (mean, standard deviation)).
        sigma_tol: accepted distance from the mean in standard deviations.

    Raises:
        KeyError: an entry names a task or metric that was not evaluated.
    """
    passed = True
    for task, metric, (mean, std) in expected_results:
        if metric not in results.results.get(task, {}):
            known = [f"{t}/{m}" for t, figures in results.results.items() for m in figures]
            raise KeyError(f"TEST.EXPECTED_RESULTS names {task}/{metric}; evaluated: {', '.join(known)}")
        actual, low, high = results.results[task][metric], mean - sigma_tol * std, mean + sigma_tol * std
        within = low < actual < high
        text = f"{task} > {metric} sanity check (actual vs. expected): {actual:.3f} vs. mean={mean:.4f}, std={std:.4}, "
        text += f"range=({low:.4f}, {high:.4f})"
        if within:
            logger.info("PASS: %s", text)
        else:
            logger.error("FAIL: %s", text)
        passed = passed and within
    return passed


def _evaluate_proposals(dataset: Any, predictions: Predictions) -> CocoResults:
    results = CocoResults("box_proposal")
    for limit in _PROPOSAL_LIMITS:
        for suffix, area in _PROPOSAL_AREAS.items():
            recall = evaluate_box_proposals(predictions, dataset, area=AREA_RANGES[area], limit=limit)
            results.results["box_proposal"][f"AR{suffix}@{limit}"] = recall.average_recall
    return results


def _detections_as_coco(coco_gt: COCO, detections: list[dict], iou_type: str) -> COCO:
    """The result list as a COCO object. (COCO.loadRes refuses an empty list and ground truth without `info`.)"""
    unknown = {detection["image_id"] for detection in detections} - set(coco_gt.imgs)
    if unknown:
        raise ValueError(f"detections name images that the ground truth lacks: {sorted(unknown)[:5]}")
    annotations = []
    for number, detection in enumerate(detections, start=1):
        annotation = copy.copy(detection)
        if iou_type == "segm":
            annotation["area"] = float(mask_utils.area(detection["segmentation"]))
        elif iou_type == "keypoints":
            annotation["bbox"] = extent_of(detection["keypoints"])
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        else:
            annotation["area"] = detection["bbox"][2] * detection["bbox"][3]
        annotation.update(id=number, iscrowd=0)
        annotations.append(annotation)
    coco_dt = COCO()
    coco_dt.dataset = {
        "images": coco_gt.dataset["images"],
        "categories": coco_gt.dataset.get("categories", []),
        "annotations": annotations,
    }
    coco_dt.createIndex()
    return coco_dt
