"""COCO evaluation of boxes, masks and keypoints: this module feeds an engine and keeps the figures."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .columns import Detections
from .fast_coco import FastCocoEval
from .keypoints import extent_of, keypoint_ground_truth, oks_sigmas_for
from .lists import CocoLists
from .proposals import AREA_RANGES, evaluate_box_proposals
from .report import coco_report, write_report
from .results import Predictions, save_plain, write_results
from .settings import EvaluationSettings

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


def evaluate_coco(
    dataset: Any,
    predictions: dict[int, Any],
    output_folder: str | os.PathLike[str] | None,
    settings: EvaluationSettings,
    results: CocoLists | None,
) -> tuple[CocoResults, Mapping[str, list[dict]]]:
    """Evaluate predictions on a COCO-format data set; see `evaluate`.

    Args:
        dataset: has `coco` (pycocotools' COCO), `get_img_info(i)`, `id_to_img_map` and
            `contiguous_category_id_to_json_id`.
        predictions: by ascending data set index.
        output_folder: receives bbox.json, segm.json, keypoints.json, coco_results.pth and evaluation.json, or
            box_proposals.pth and evaluation.json; None writes nothing.
        settings: all but `dataset_name` matter.
        results: see `evaluate`.
    """
    if settings.box_only:
        figures, results = _evaluate_proposals(dataset, predictions), CocoLists({})
        evaluations, file_name = {}, "box_proposals.pth"
    else:
        if results is None:
            results = write_results(dataset, predictions, output_folder, iou_types=settings.iou_types)
        image_ids = [dataset.id_to_img_map[index] for index in predictions]
        figures, file_name = CocoResults(*settings.iou_types), "coco_results.pth"
        with contextlib.redirect_stdout(io.StringIO()):
            coco_gt = dataset.coco  # may be read from the file now
        evaluations = {}
        for iou_type, detections in results.columns.items():
            evaluations[iou_type] = evaluate_detections(
                coco_gt,
                detections,
                iou_type,
                image_ids=image_ids,
                oks_sigmas=settings.oks_sigmas,
                engine=settings.coco_engine,
            )
            figures.update(evaluations[iou_type])
    logger.info("%s", figures)
    if output_folder is not None:
        save_plain(Path(output_folder, file_name), figures.results)
        write_report(Path(output_folder), coco_report(figures, evaluations, results, settings, len(predictions)))
    return figures, results


def evaluate_detections(
    coco_gt: COCO,
    detections: Detections | Sequence[dict],
    iou_type: str,
    *,
    image_ids: Sequence[int] | None = None,
    oks_sigmas: Sequence[float] = (),
    engine: str = "fast",
) -> COCOeval:
    """COCO's evaluation of results, of which there may be none; prints the standard lines, twelve or (keypoints) ten.

    Args:
        coco_gt: the ground truth.
        detections: COCO results as in bbox.json, segm.json or keypoints.json, as columns or as a list.
        iou_type: "bbox", "segm" or "keypoints".
        image_ids: the images to evaluate on; None: all images of the ground truth.
        oks_sigmas: of "keypoints", how far annotators differ on each, in units of the object's size; empty: COCO's for
            its 17.
        engine: "fast", which leaves keypoints to pycocotools, or "pycocotools". Both give the same figures.

    Returns:
        The summarised COCOeval.

    Raises:
        ValueError: a detection names an image that the ground truth lacks, or the sigmas do not fit the keypoints.
    """
    if not isinstance(detections, Detections):
        detections = Detections.from_list(detections, iou_type)
    unknown = set(detections.image_ids.tolist()) - set(coco_gt.imgs)
    if unknown:
        raise ValueError(f"detections name images that the ground truth lacks: {sorted(unknown)[:5]}")
    if engine == "fast" and iou_type != "keypoints":
        coco_eval: COCOeval = FastCocoEval(coco_gt, detections)
        _run(coco_eval, image_ids)
    else:
        # pycocotools reports progress on stdout; only its summary is part of this program's output.
        with contextlib.redirect_stdout(io.StringIO()):
            coco_eval = _reference_evaluation(coco_gt, detections.to_list(), iou_type, oks_sigmas)
            _run(coco_eval, image_ids)
    coco_eval.summarize()
    return coco_eval


def _run(coco_eval: COCOeval, image_ids: Sequence[int] | None) -> None:
    if image_ids is not None:
        coco_eval.params.imgIds = list(image_ids)
    coco_eval.evaluate()
    coco_eval.accumulate()


def _reference_evaluation(
    coco_gt: COCO, detections: list[dict], iou_type: str, oks_sigmas: Sequence[float]
) -> COCOeval:
    if iou_type != "keypoints":
        return COCOeval(coco_gt, _detections_as_coco(coco_gt, detections, iou_type), iou_type)
    sigmas = oks_sigmas_for(coco_gt, oks_sigmas)
    completed = keypoint_ground_truth(coco_gt, len(sigmas))
    coco_eval = COCOeval(completed, _detections_as_coco(completed, detections, iou_type), iou_type)
    coco_eval.params.kpt_oks_sigmas = sigmas
    return coco_eval


def _evaluate_proposals(dataset: Any, predictions: Predictions) -> CocoResults:
    results = CocoResults("box_proposal")
    for limit in _PROPOSAL_LIMITS:
        for suffix, area in _PROPOSAL_AREAS.items():
            recall = evaluate_box_proposals(predictions, dataset, area=AREA_RANGES[area], limit=limit)
            results.results["box_proposal"][f"AR{suffix}@{limit}"] = recall.average_recall
    return results


def _detections_as_coco(coco_gt: COCO, detections: list[dict], iou_type: str) -> COCO:
    """The result list as a COCO object. (COCO.loadRes refuses an empty list and ground truth without `info`.)"""
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
