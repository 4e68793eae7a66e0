"""Everything that can be wrong with a data set in COCO's format, found before a training run finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.coco_json import keypoints_of, parse_json, polygons_of
from maskrcnn_benchmark.data.image_io import read_image


@dataclass
class CocoReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        counts: what there is, by a word for it.
        objects: annotations by category name, crowds apart.
        errors: faults that stop a run.
        warnings: entries that training leaves out.
    """

    counts: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_coco(
    ann_file: str | Path,
    img_dir: str | Path,
    *,
    decode: bool = True,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> CocoReport:
    """Go through an annotation file and its images.

    Args:
        ann_file: the json.
        img_dir: folder of the images.
        decode: also decode every image, which finds damaged files and wrong sizes.
        progress: wraps the loop over the images, for example in a progress bar.

    Raises:
        FileNotFoundError: when there is no such json.
        ValueError: when it is not JSON.
    """
    data = parse_json(Path(ann_file))
    report = CocoReport()
    for key in ("images", "categories", "annotations"):
        if not isinstance(data.get(key), list):
            report.errors.append(f"there is no list {key!r}")
        elif not all(isinstance(item, dict) and isinstance(item.get("id"), int) for item in data[key]):
            report.errors.append(f"an entry of {key!r} has no integer id")
        else:
            ids = Counter(item["id"] for item in data[key])
            report.errors += [f"id {n} stands {count} times in {key!r}" for n, count in ids.items() if count > 1]
    if report.errors:
        return report
    for image in progress(data["images"]):
        report.errors += _faults_of_image(image, Path(img_dir), decode=decode)
    images = {image["id"]: image for image in data["images"]}
    categories = {category["id"]: str(category.get("name", category["id"])) for category in data["categories"]}
    for item in data["annotations"]:
        errors, warnings = _faults_of_annotation(item, images=images, categories=categories)
        report.errors += errors
        report.warnings += warnings
    report.warnings += _warnings_of_keypoints(data)
    _count(report, data, categories)
    return report


def _count(report: CocoReport, data: dict[str, Any], categories: dict[int, str]) -> None:
    crowds = sum(bool(item.get("iscrowd")) for item in data["annotations"])
    with_objects = {item.get("image_id") for item in data["annotations"] if not item.get("iscrowd")}
    report.counts = {
        "images": len(data["images"]),
        "images without objects": sum(image["id"] not in with_objects for image in data["images"]),
        "categories": len(categories),
        "objects": len(data["annotations"]) - crowds,
        "crowds": crowds,
    }
    with_keypoints = sum(bool(item.get("keypoints")) for item in data["annotations"])
    if with_keypoints:
        report.counts["objects with keypoints"] = with_keypoints
    report.objects = dict.fromkeys(categories.values(), 0)
    for item in data["annotations"]:
        name = categories.get(item.get("category_id"))
        if name is not None and not item.get("iscrowd"):
            report.objects[name] += 1


def _warnings_of_keypoints(data: dict[str, Any]) -> list[str]:
    """What stops a run with MODEL.KEYPOINT_ON alone: objects with different numbers of keypoints."""
    annotated, named = (
        {len(item["keypoints"]) for item in data[key] if item.get("keypoints") and isinstance(item["keypoints"], list)}
        for key in ("annotations", "categories")
    )
    counts = {numbers // 3 for numbers in annotated} | named
    if len(counts) < 2:
        return []
    return [f"objects have different numbers of keypoints, {sorted(counts)}: no model of keypoints can be trained"]


def _faults_of_image(image: dict[str, Any], folder: Path, *, decode: bool) -> list[str]:
    who = f"image {image['id']}"
    missing = [key for key in ("file_name", "height", "width") if not image.get(key)]
    if missing:
        return [f"{who} has no {' and no '.join(missing)}"]
    path = folder / image["file_name"]
    if not path.is_file():
        return [f"{who}: there is no file {path}"]
    if not decode:
        return []
    try:
        height, width = read_image(path).shape[:2]
    except (OSError, ValueError) as error:
        return [f"{who}: {error}"]
    if (height, width) != (image["height"], image["width"]):
        return [f"{who}: {path} is {width}x{height} pixels, the json says {image['width']}x{image['height']}"]
    return []


def _faults_of_annotation(
    item: dict[str, Any], *, images: dict[int, dict[str, Any]], categories: dict[int, str]
) -> tuple[list[str], list[str]]:
    """(errors, warnings) of one annotation."""
    who = f"annotation {item['id']}"
    errors, warnings = [], []
    image = images.get(item.get("image_id"))
    if image is None:
        errors.append(f"{who} belongs to image {item.get('image_id')}, which is not listed")
    if item.get("category_id") not in categories:
        errors.append(f"{who} has category {item.get('category_id')}, which is not listed")
    box = item.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)):
        errors.append(f"{who} has no bbox of 4 numbers but {box}")
    elif not item.get("iscrowd") and min(box[2:]) <= 1:
        warnings.append(f"{who} is left out: its box is degenerate, {box[2]} wide and {box[3]} high")
    segmentation = item.get("segmentation")
    if segmentation and image is not None and image.get("height") and image.get("width"):
        try:
            rings = polygons_of(segmentation, height=image["height"], width=image["width"])
        except (KeyError, TypeError, ValueError) as error:
            errors.append(f"{who} has a segmentation that cannot be read: {error}")
        else:
            if isinstance(segmentation, list) and len(rings) < len(segmentation):
                number = len(segmentation) - len(rings)
                warnings.append(f"{who}: {number} of its {len(segmentation)} polygons have fewer than 6 numbers")
    if item.get("keypoints"):
        try:
            keypoints_of(item)
        except ValueError as error:
            errors.append(str(error))
    return errors, warnings
