"""The part of a report that shows images: the best and the worst, annotated beside found."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.apps.contact_sheet import draw_targets
from maskrcnn_benchmark.apps.drawing import distinct_colours, draw_detections
from maskrcnn_benchmark.apps.report import page
from maskrcnn_benchmark.apps.report.page import Section
from maskrcnn_benchmark.apps.report.run_folder import RunFolder

MOST_OF_EACH = 6
LONGER_SIDE = 480
_JPEG_QUALITY = 82
# The task whose scores choose the images, and the file of its detections.
_TASKS = (("segm", "segm.json"), ("bbox", "bbox.json"))


def picture_section(run: RunFolder, data_sets: Mapping[str, Any], notes: list[str]) -> Section:
    """Pairs of pictures of each tested data set that is on this machine; notes say what keeps one out."""
    parts = []
    for name, title, pairs in picture_groups(run, data_sets, notes):
        parts.append(Markup("<h3>{}: the {} images</h3>").format(name, title))
        parts.append(page.pictures(pairs))
    return Section("pictures", "Best and worst", Markup("").join(parts))


def picture_groups(
    run: RunFolder, data_sets: Mapping[str, Any], notes: list[str]
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(data set, "worst" or "best", ``picture_pairs``) of each tested data set that is on this machine."""
    for name, test in run.tests.items():
        choice = next(
            ((test["tasks"][task], file) for task, file in _TASKS if "images" in test.get("tasks", {}).get(task, {})),
            None,
        )
        if choice is None or name not in data_sets:
            continue
        part, file = choice
        chosen = part["images"]
        worst = chosen["worst"][:MOST_OF_EACH]
        known = {entry["image_id"] for entry in worst}
        best = [entry for entry in chosen["best"][:MOST_OF_EACH] if entry["image_id"] not in known]
        threshold = part["confusion"]["score_threshold"]
        try:
            found = _detections(run.path / "inference" / name / file, known | {e["image_id"] for e in best}, threshold)
        except (OSError, ValueError) as error:
            notes.append(f"There are no pictures of {name}: {error}.")
            continue
        places = {image_id: index for index, image_id in data_sets[name].id_to_img_map.items()}
        for title, entries in (("worst", worst), ("best", best)):
            pairs = picture_pairs(data_sets[name], entries, found, places, notes)
            if pairs:
                yield name, title, pairs


def picture_pairs(
    data_set: Any,
    entries: Sequence[Mapping[str, Any]],
    found: Mapping[Any, Sequence[Mapping[str, Any]]],
    places: Mapping[Any, int],
    notes: list[str],
) -> list[dict[str, Any]]:
    """What the page shows of some images: JPEGs in base64, annotated and found, and a remark.

    Args:
        data_set: a ``DetectionDataset``.
        entries: of evaluation.json.
        found: detections by image id.
        places: index in the data set by image id.
        notes: told of images that cannot be read.
    """
    pairs = []
    for entry in entries:
        index = places.get(entry["image_id"])
        if index is None:
            continue
        try:
            image = data_set.load_image(index)
        except (OSError, ValueError) as error:
            notes.append(f"An image is not shown: {error}.")
            continue
        image = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        own = found.get(entry["image_id"], [])
        scale = min(LONGER_SIDE / max(image.shape[:2]), 4.0)
        size = tuple(max(round(side * scale), 1) for side in image.shape[:2])
        small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        pairs.append(
            {
                "name": data_set.get_img_info(index)["file_name"],
                "remark": f"{entry['right']} right, {entry['wrong']} wrong, {entry['missed']} missed",
                "truth": _jpeg(draw_targets(small, data_set.load_targets(index), data_set.categories)),
                "found": _jpeg(_draw_found(small, own, data_set, image.shape[:2])),
                "num_truth": entry["num_objects"],
                "num_found": len(own),
                "width": size[1],
                "height": size[0],
            }
        )
    return pairs


def _detections(path: Path, image_ids: set, threshold: float) -> dict[Any, list[dict[str, Any]]]:
    """Detections of some images from a result file, from a score on."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for detection in json.loads(path.read_bytes()):
        if detection["image_id"] in image_ids and detection["score"] >= threshold:
            found.setdefault(detection["image_id"], []).append(detection)
    return found


def _draw_found(
    small: np.ndarray, detections: Sequence[Mapping[str, Any]], data_set: Any, size: tuple[int, int]
) -> np.ndarray:
    """The detections on the scaled picture, in the colours of their classes."""
    colours = distinct_colours(len(data_set.categories))
    labels = [data_set.json_category_id_to_contiguous_id[entry["category_id"]] for entry in detections]
    scales = np.array(small.shape[1::-1]) / size[::-1]
    boxes, masks = [], []
    for entry in detections:
        if "segmentation" in entry:
            rle = entry["segmentation"]
            mask = mask_utils.decode(rle)
            x, y, width, height = mask_utils.toBbox(rle)
            masks.append(cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(bool))
        else:
            x, y, width, height = entry["bbox"]
        boxes.append([x, y, x + width - 1, y + height - 1])
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4) * np.tile(scales, 2)
    return draw_detections(
        small,
        corners,
        [
            f"{data_set.categories[label - 1]} {entry['score']:.2f}"
            for label, entry in zip(labels, detections, strict=True)
        ],
        masks=np.stack(masks) if masks else None,
        colours=[colours[label - 1] for label in labels] or None,
    )


def _jpeg(picture: np.ndarray) -> str:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return base64.b64encode(data).decode("ascii")
