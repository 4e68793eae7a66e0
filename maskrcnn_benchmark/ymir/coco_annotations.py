"""Annotations of a whole data set in the platform's COCO file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from maskrcnn_benchmark.data.datasets.coco_entries import numbers_of, polygons_of
from maskrcnn_benchmark.ymir.annotations import LabelledObject, class_name_key, unknown_class
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

FILE_NAME = "coco-annotations.json"


class CocoAnnotations:
    """The objects of a COCO file by image.

    Its categories are numbered from 0 in any order, so a class is known by its name alone. Training and validation
    images are in the same file.

    Args:
        path: of the file.
        labels: label by name, see ``labels_of``.

    Raises:
        JobError: it is missing, no JSON, or lacks a section.
    """

    def __init__(self, path: str, labels: Mapping[str, int]) -> None:
        self.path = path
        self.labels = labels
        content = _read(path)
        self._names = {entry["id"]: str(entry["name"]) for entry in self._section(content, "categories", "id", "name")}
        images = self._section(content, "images", "id", "file_name")
        self._ids = {os.path.basename(str(entry["file_name"])): entry["id"] for entry in images}
        # The index names files as they lie there, which may have no ending.
        for name, image_id in list(self._ids.items()):
            self._ids.setdefault(os.path.splitext(name)[0], image_id)
        self._objects: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in images}
        for entry in self._section(content, "annotations", "image_id", "category_id", "bbox"):
            self._objects.setdefault(entry["image_id"], []).append(entry)

    def of(self, name: str, *, height: int, width: int) -> list[LabelledObject]:
        """The objects of one image.

        Args:
            name: base name of the image.
            height, width: of the image, in pixels.

        Raises:
            JobError: the file does not know the image, or an annotation of it is faulty.
        """
        image_id = self._ids.get(name, self._ids.get(os.path.splitext(name)[0]))
        if image_id is None:
            raise JobError(ReturnCode.ANNOTATION, f"annotation file {self.path} has no image {name}")
        return [self._object(entry, height, width) for entry in self._objects[image_id]]

    def _object(self, entry: Mapping[str, Any], height: int, width: int) -> LabelledObject:
        place = f"annotation file {self.path} annotation {entry.get('id')}"
        name = self._names.get(entry["category_id"], f"category {entry['category_id']}")
        label = self.labels.get(class_name_key(name))
        if label is None:
            raise unknown_class(place, name, self.labels)
        try:
            box = tuple(numbers_of(entry["bbox"]).tolist())
            if len(box) != 4:
                raise ValueError(f"bbox must have 4 numbers, got {entry['bbox']!r}")
            area = float(numbers_of([entry.get("area") or 0])[0])
            segmentation = entry.get("segmentation") or None  # {} or [] beside a box alone
            if segmentation is not None and not polygons_of(segmentation, height=height, width=width):
                segmentation = None
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(ReturnCode.ANNOTATION, f"{place}: {error}") from error
        return LabelledObject(label, box, segmentation, area, bool(entry.get("iscrowd")))

    def _section(self, content: Mapping[str, Any], name: str, *keys: str) -> list[dict[str, Any]]:
        entries = content.get(name)
        if not isinstance(entries, list):
            raise JobError(ReturnCode.ANNOTATION, f"annotation file {self.path} has no list {name!r}")
        for number, entry in enumerate(entries):
            missing = [key for key in keys if key not in entry] if isinstance(entry, dict) else list(keys)
            if missing:
                raise JobError(
                    ReturnCode.ANNOTATION, f"annotation file {self.path}: {name}[{number}] lacks {', '.join(missing)}"
                )
        return entries


def _read(path: str) -> dict[str, Any]:
    try:
        content = orjson.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise JobError(ReturnCode.DATASET, f"annotation file {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise JobError(ReturnCode.ANNOTATION, f"annotation file {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise JobError(ReturnCode.ANNOTATION, f"annotation file {path} must hold a COCO data set")
    return content
