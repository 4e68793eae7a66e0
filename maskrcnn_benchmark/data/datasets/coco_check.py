"""Everything that can be wrong with a data set in COCO's format, found before a training run finds it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.coco_entries import keypoints_of, polygons_of
from maskrcnn_benchmark.data.datasets.coco_json import parse_json
from maskrcnn_benchmark.data.datasets.report import DataReport, Progress, faults_of_image, warnings_of_object


def check_coco(
    ann_file: str | Path, img_dir: str | Path, *, decode: bool = True, progress: Progress = iter
) -> DataReport:
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
    report = DataReport()
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
    names = Counter(str(image.get("file_name")) for image in data["images"])
    report.warnings += [f"file {name} is listed by {count} images" for name, count in names.items() if count > 1]
    for image in progress(data["images"]):
        report.errors += _faults_of_entry(image, Path(img_dir), decode=decode)
    images = {image["id"]: image for image in data["images"]}
    categories = {category["id"]: str(category.get("name", category["id"])) for category in data["categories"]}
    for item in data["annotations"]:
        errors, warnings = _faults_of_annotation(item, images=images, categories=categories)
        report.errors += errors
        report.warnings += warnings
    report.warnings += _warnings_of_keypoints(data)
    _count(report, data, categories)
    return report


def _count(report: DataReport, data: dict[str, Any], categories: dict[int, str]) -> None:
    crowds = sum(bool(item.get("iscrowd")) for item in data["annotations"])
    with_objects = {_id(item, "image_id") for item in data["annotations"] if not item.get("iscrowd")}
    report.counts = {
        "images": len(data["images"]),
        "images without objects": sum(image["id"] not in with_objects for image in data["images"]),
        "categories": len(categories),
        "objects": len(data["annotations"]) - crowds,
        "objects with masks": sum(
            bool(item.get("segmentation")) and not item.get("iscrowd") for item in data["annotations"]
        ),
        "crowds": crowds,
    }
    with_keypoints = sum(bool(item.get("keypoints")) for item in data["annotations"])
    if with_keypoints:
        report.counts["objects with keypoints"] = with_keypoints
    report.objects = dict.fromkeys(categories.values(), 0)
    for item in data["annotations"]:
        if item.get("iscrowd"):
            continue
        name = categories.get(_id(item, "category_id"))
        if name is not None:
            report.objects[name] += 1
        if _is_box(item.get("bbox")):
            report.object_sizes.append((item["bbox"][3], item["bbox"][2]))
    report.image_sizes = [size for size in map(_size_of, data["images"]) if size is not None]


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


def _id(item: dict[str, Any], key: str) -> int | None:
    """The id that an entry names; None where it names none."""
    value = item.get(key)
    return value if isinstance(value, int) else None


def _size_of(image: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the json says; None where it does not."""
    size = image.get("height"), image.get("width")
    return size if all(type(side) is int and side > 0 for side in size) else None


def _faults_of_entry(image: dict[str, Any], folder: Path, *, decode: bool) -> list[str]:
    who = f"image {image['id']}"
    missing = [key for key in ("file_name", "height", "width") if not image.get(key)]
    if missing:
        return [f"{who} has no {' and no '.join(missing)}"]
    if not isinstance(image["file_name"], str) or _size_of(image) is None:
        return [f"{who} must have a file_name and, in whole pixels, height and width, got {str(image)[:100]}"]
    return [f"{who}: {fault}" for fault in faults_of_image(folder / image["file_name"], _size_of(image), decode=decode)]


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)


def _faults_of_annotation(
    item: dict[str, Any], *, images: dict[int, dict[str, Any]], categories: dict[int, str]
) -> tuple[list[str], list[str]]:
    """(errors, warnings) of one annotation."""
    errors, warnings = [], []
    image = images.get(_id(item, "image_id"))
    who = f"annotation {item['id']}" if image is None else f"{image.get('file_name')}: annotation {item['id']}"
    if image is None:
        errors.append(f"{who} belongs to image {item.get('image_id')}, which is not listed")
    if _id(item, "category_id") not in categories:
        errors.append(f"{who} has category {item.get('category_id')}, which is not listed")
    size = _size_of(image) if image is not None else None
    rings = None
    segmentation = item.get("segmentation")
    if segmentation and size is not None:
        try:
            rings = polygons_of(segmentation, height=size[0], width=size[1])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            errors.append(f"{who} has a segmentation that cannot be read: {error}")
        else:
            if isinstance(segmentation, list) and len(rings) < len(segmentation):
                number = len(segmentation) - len(rings)
                warnings.append(f"{who}: {number} of its {len(segmentation)} polygons have fewer than 6 numbers")
    if not _is_box(item.get("bbox")):
        errors.append(f"{who} has no bbox of 4 numbers but {item.get('bbox')}")
    elif not item.get("iscrowd"):
        warnings += warnings_of_object(who, item["bbox"], rings, size)
    if item.get("keypoints"):
        try:
            keypoints_of(item)
        except ValueError as error:
            errors.append(str(error))
    return errors, warnings
