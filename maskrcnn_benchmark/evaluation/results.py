"""Predictions in files: COCO result lists (bbox.json, segm.json, keypoints.json) and predictions.pth.

Predictions are BoxLists in the pixels of the resized image that the network saw; here they return to the pixels, the
image ids and the category ids of the data set. A data set is anything with `get_img_info(i)`, `id_to_img_map` and
`contiguous_category_id_to_json_id`. Letters: R detections of one image, M side of a mask, P keypoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from maskrcnn_benchmark.ops import paste_masks_rle
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoints_of

Predictions = Mapping[int, BoxList] | Sequence[BoxList]
MASK_THRESHOLD = 0.5
_FIELDS = ("scores", "labels", "mask", "objectness")


def by_index(predictions: Predictions) -> dict[int, BoxList]:
    """Predictions by data set index, ascending. A sequence is indexed by position, a mapping may be partial."""
    if isinstance(predictions, Mapping):
        return dict(sorted(predictions.items()))
    return dict(enumerate(predictions))


def prepare_for_coco_detection(predictions: Predictions, dataset: Any) -> list[dict]:
    """COCO box results: image_id, category_id, bbox [x, y, width, height] with legacy +1 widths, score."""
    detections = []
    for image_id, prediction in _in_dataset_pixels(predictions, dataset):
        boxes = prediction.convert("xywh").bbox.tolist()
        for box, score, category in zip(boxes, *_scores_and_categories(prediction, dataset), strict=True):
            detections.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    return detections


def prepare_for_coco_segmentation(
    predictions: Predictions, dataset: Any, *, threshold: float = MASK_THRESHOLD
) -> list[dict]:
    """COCO mask results: image_id, category_id, segmentation (compressed RLE with text counts), score.

    Args:
        predictions: BoxLists with a field `mask` of probabilities float32 [R, 1, M, M].
        dataset: see the module.
        threshold: a pixel belongs to the mask when its interpolated probability is above this.
    """
    detections = []
    for image_id, prediction in _in_dataset_pixels(predictions, dataset):
        width, height = prediction.size
        rles = paste_masks_rle(
            prediction.get_field("mask")[:, 0].float(),
            prediction.convert("xyxy").bbox,
            image_size=(height, width),
            threshold=threshold,
        )
        for rle, score, category in zip(rles, *_scores_and_categories(prediction, dataset), strict=True):
            segmentation = {"size": list(rle["size"]), "counts": _as_text(rle["counts"])}
            detections.append(
                {"image_id": image_id, "category_id": category, "segmentation": segmentation, "score": score}
            )
    return detections


def prepare_for_coco_keypoint(predictions: Predictions, dataset: Any) -> list[dict]:
    """COCO keypoint results: image_id, category_id, keypoints [x, y, 1, ...], score (that of the box)."""
    detections = []
    for image_id, prediction in _in_dataset_pixels(predictions, dataset):
        points = prediction.get_field("keypoints").keypoints.flatten(1).tolist()
        for own, score, category in zip(points, *_scores_and_categories(prediction, dataset), strict=True):
            detections.append({"image_id": image_id, "category_id": category, "keypoints": own, "score": score})
    return detections


PREPARE = {
    "bbox": prepare_for_coco_detection,
    "segm": prepare_for_coco_segmentation,
    "keypoints": prepare_for_coco_keypoint,
}


def write_results(
    dataset: Any,
    predictions: Predictions,
    output_folder: str | os.PathLike[str] | None,
    *,
    iou_types: Sequence[str] = ("bbox",),
) -> dict[str, list[dict]]:
    """Convert predictions to COCO results and write `<iou type>.json` for each; return them by type.

    `output_folder` None writes nothing. Every file appears complete or not at all.

    Raises:
        KeyError: an IoU type that is not one of bbox, segm, keypoints.
    """
    results = {}
    for iou_type in iou_types:
        if iou_type not in PREPARE:
            raise KeyError(f"unknown IoU type {iou_type!r}; known: {', '.join(PREPARE)}")
        results[iou_type] = PREPARE[iou_type](predictions, dataset)
        if output_folder is not None:
            write_json(Path(output_folder, f"{iou_type}.json"), results[iou_type])
    return results


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(content))
    scratch.replace(path)


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions as plain tensors and numbers, so that `torch.load(weights_only=True)` reads them.

    The file holds {index: {"size": (width, height), "bbox": [R, 4] xyxy, "scores": [R], "labels": [R], "mask": ...,
    "keypoints": [R, P, 3], "keypoint_logits": [R, P]}}; mask probabilities as float16, because they fill gigabytes on
    COCO's validation images otherwise.
    """
    plain = {}
    for index, prediction in by_index(predictions).items():
        entry: dict[str, Any] = {"size": tuple(prediction.size), "bbox": prediction.convert("xyxy").bbox.cpu()}
        entry.update({name: prediction.get_field(name).cpu() for name in _FIELDS if prediction.has_field(name)})
        if "mask" in entry:
            entry["mask"] = entry["mask"].half()
        if prediction.has_field("keypoints"):
            keypoints = prediction.get_field("keypoints")
            entry["keypoints"] = keypoints.keypoints.cpu()
            entry["keypoint_logits"] = keypoints.get_field("logits").cpu()
        plain[index] = entry
    save_plain(path, plain)


def save_plain(path: str | os.PathLike[str], content: Any) -> None:
    """torch.save under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    torch.save(content, scratch)
    scratch.replace(path)


def load_predictions(path: str | os.PathLike[str]) -> dict[int, BoxList]:
    """Read what `save_predictions` wrote."""
    predictions = {}
    for index, entry in torch.load(path, weights_only=True).items():
        prediction = BoxList(entry["bbox"], entry["size"], mode="xyxy")
        for name in _FIELDS:
            if name in entry:
                prediction.add_field(name, entry[name].float() if name == "mask" else entry[name])
        if "keypoints" in entry:
            keypoints = keypoints_of(entry["keypoints"], entry["size"])
            keypoints.add_field("logits", entry["keypoint_logits"])
            prediction.add_field("keypoints", keypoints)
        predictions[index] = prediction
    return predictions


def _in_dataset_pixels(predictions: Predictions, dataset: Any) -> Iterator[tuple[int, BoxList]]:
    """(image id, prediction in the original image's pixels) for every image with at least one detection."""
    for index, prediction in by_index(predictions).items():
        if len(prediction) == 0:
            continue
        info = dataset.get_img_info(index)
        resized = prediction.resize((info["width"], info["height"]))
        yield dataset.id_to_img_map[index], resized


def _scores_and_categories(prediction: BoxList, dataset: Any) -> tuple[list[float], list[int]]:
    to_json_id = dataset.contiguous_category_id_to_json_id
    labels = prediction.get_field("labels").tolist()
    return prediction.get_field("scores").tolist(), [to_json_id[label] for label in labels]


def _as_text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
