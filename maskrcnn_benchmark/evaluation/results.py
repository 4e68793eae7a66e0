"""Predictions in files: COCO result lists (bbox.json, segm.json, keypoints.json) and predictions.pth.

Predictions are BoxLists in the pixels of the resized image that the network saw; here they return to the pixels, the
image ids and the category ids of the data set. A data set is anything with `get_img_info(i)`, `id_to_img_map` and
`contiguous_category_id_to_json_id`. Letters: R detections of one image, M side of a mask, P keypoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskrcnn_benchmark.checkpoint.files import read_weights, save_atomically, write_atomically
from maskrcnn_benchmark.ops import paste_masks_rle
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoints_of

from .columns import Detections, Masks
from .lists import CocoLists

Predictions = Mapping[int, BoxList] | Sequence[BoxList]
MASK_THRESHOLD = 0.5
IOU_TYPES = ("bbox", "segm", "keypoints")
_FIELDS = ("scores", "labels", "mask", "objectness")


def by_index(predictions: Predictions) -> dict[int, BoxList]:
    """Predictions by data set index, ascending. A sequence is indexed by position, a mapping may be partial."""
    if isinstance(predictions, Mapping):
        return dict(sorted(predictions.items()))
    return dict(enumerate(predictions))


def prepare_for_coco_detection(predictions: Predictions, dataset: Any) -> list[dict]:
    """COCO box results: image_id, category_id, bbox [x, y, width, height] with legacy +1 widths, score."""
    return detections_of(predictions, dataset, "bbox").to_list()


def prepare_for_coco_segmentation(
    predictions: Predictions, dataset: Any, *, threshold: float = MASK_THRESHOLD
) -> list[dict]:
    """COCO mask results: image_id, category_id, segmentation (compressed RLE with text counts), score.

    Args:
        predictions: BoxLists with a field `mask` of probabilities float32 [R, 1, M, M].
        dataset: see the module.
        threshold: a pixel belongs to the mask when its interpolated probability is above this.
    """
    return detections_of(predictions, dataset, "segm", threshold=threshold).to_list()


def prepare_for_coco_keypoint(predictions: Predictions, dataset: Any) -> list[dict]:
    """COCO keypoint results: image_id, category_id, keypoints [x, y, 1, ...], score (that of the box)."""
    return detections_of(predictions, dataset, "keypoints").to_list()


def detections_of(
    predictions: Predictions, dataset: Any, iou_type: str, *, threshold: float = MASK_THRESHOLD
) -> Detections:
    """The COCO results of one kind, "bbox", "segm" or "keypoints", by ascending index."""
    parts = [
        image_detections(index, prediction, dataset, iou_type, threshold=threshold)
        for index, prediction in by_index(predictions).items()
    ]
    return Detections.join(parts, iou_type)


def image_detections(
    index: int, prediction: BoxList, dataset: Any, iou_type: str, *, threshold: float = MASK_THRESHOLD
) -> Detections:
    """The COCO results of one image.

    Args:
        index: of the image in the data set.
        prediction: in the pixels of the network.
        dataset: see the module.
        iou_type: "bbox", "segm" or "keypoints".
        threshold: of masks.

    Raises:
        KeyError: another IoU type.
    """
    if iou_type not in IOU_TYPES:
        raise KeyError(f"unknown IoU type {iou_type!r}; known: {', '.join(IOU_TYPES)}")
    if len(prediction) == 0:
        return Detections.from_list([], iou_type)
    info = dataset.get_img_info(index)
    resized = prediction.resize((info["width"], info["height"]))
    to_json_id = dataset.contiguous_category_id_to_json_id
    labels = prediction.get_field("labels").tolist()
    common = (
        np.array([dataset.id_to_img_map[index]] * len(prediction)),
        np.array([to_json_id[label] for label in labels], dtype=np.int64),
        prediction.get_field("scores").cpu().double().numpy(),
    )
    if iou_type == "bbox":
        return Detections(*common, boxes=resized.convert("xywh").bbox.cpu().double().numpy())
    if iou_type == "keypoints":
        return Detections(*common, keypoints=resized.get_field("keypoints").keypoints.flatten(1).cpu().double().numpy())
    rles = paste_masks_rle(
        resized.get_field("mask")[:, 0].float(),
        resized.convert("xyxy").bbox,
        image_size=(info["height"], info["width"]),
        threshold=threshold,
    )
    return Detections(*common, masks=Masks.pack([rle["counts"] for rle in rles], [rle["size"] for rle in rles]))


def write_results(
    dataset: Any,
    predictions: Predictions,
    output_folder: str | os.PathLike[str] | None,
    *,
    iou_types: Sequence[str] = ("bbox",),
) -> CocoLists:
    """Convert predictions to COCO results and write `<iou type>.json` for each; return them by type.

    `output_folder` None writes nothing. Every file appears complete or not at all.

    Raises:
        KeyError: an IoU type that is not one of bbox, segm, keypoints.
    """
    columns = {}
    for iou_type in iou_types:
        if iou_type not in IOU_TYPES:
            raise KeyError(f"unknown IoU type {iou_type!r}; known: {', '.join(IOU_TYPES)}")
        columns[iou_type] = detections_of(predictions, dataset, iou_type)
        if output_folder is not None:
            write_bytes(Path(output_folder, f"{iou_type}.json"), orjson.dumps(columns[iou_type].to_list()))
    return CocoLists(columns)


def write_json(path: Path, content: Any) -> None:
    """Write JSON under a temporary name, then rename."""
    write_bytes(path, json.dumps(content).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all; its folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(str(path), lambda file: file.write(content))


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions as plain tensors and numbers, so that `torch.load(weights_only=True)` reads them.

    The file holds {index: {"size": (width, height), "bbox": [R, 4] xyxy, "scores": [R], "labels": [R], "mask": ...,
    "keypoints": [R, P, 3], "keypoint_logits": [R, P]}}; mask probabilities as float16, because they fill gigabytes on
    COCO's validation images otherwise.
    """
    save_plain(path, {index: plain_entry(prediction) for index, prediction in by_index(predictions).items()})


def plain_entry(prediction: BoxList) -> dict[str, Any]:
    """What `save_predictions` writes of one image."""
    entry: dict[str, Any] = {"size": tuple(prediction.size), "bbox": prediction.convert("xyxy").bbox.cpu()}
    entry.update({name: prediction.get_field(name).cpu() for name in _FIELDS if prediction.has_field(name)})
    if "mask" in entry:
        entry["mask"] = entry["mask"].half()
    if prediction.has_field("keypoints"):
        keypoints = prediction.get_field("keypoints")
        entry["keypoints"] = keypoints.keypoints.cpu()
        entry["keypoint_logits"] = keypoints.get_field("logits").cpu()
    return entry


def save_plain(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain tensors and numbers, complete or not at all; the folder is made when it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_atomically(content, os.fspath(path))


def load_predictions(path: str | os.PathLike[str]) -> dict[int, BoxList]:
    """Read what `save_predictions` wrote.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is damaged; it is named.
    """
    return {index: prediction_of(entry) for index, entry in read_weights(os.fspath(path)).items()}


def prediction_of(entry: Mapping[str, Any]) -> BoxList:
    """The prediction that `plain_entry` took apart."""
    prediction = BoxList(entry["bbox"], entry["size"], mode="xyxy")
    for name in _FIELDS:
        if name in entry:
            prediction.add_field(name, entry[name].float() if name == "mask" else entry[name])
    if "keypoints" in entry:
        keypoints = keypoints_of(entry["keypoints"], entry["size"])
        keypoints.add_field("logits", entry["keypoint_logits"])
        prediction.add_field("keypoints", keypoints)
    return prediction
