"""Annotations of one image in the platform's text and VOC formats."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.voc_xml import read_xml
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

logger = logging.getLogger("maskrcnn_benchmark.ymir")

_LEAST_COLUMNS = 5  # class and corners; quality and angle may be missing


@dataclass(frozen=True)
class LabelledObject:
    """One object.

    Args:
        label: 1 for the first class.
        box: x, y, width, height in pixels.
        segmentation: COCO's polygons or RLE; None where there is only a box.
        area: in square pixels, where the file says it; 0 otherwise.
        is_crowd: a group, not a single object.
    """

    label: int
    box: tuple[float, float, float, float]
    segmentation: Any = None
    area: float = 0.0
    is_crowd: bool = False


def labels_of(class_names: Sequence[str]) -> dict[str, int]:
    """Label by name, as ``class_name_key`` writes it."""
    return {class_name_key(name): label for label, name in enumerate(class_names, start=1)}


def class_name_key(name: str) -> str:
    """How the platform compares names."""
    return name.strip().lower()


def read_ark(path: str, labels: Mapping[str, int]) -> list[LabelledObject]:
    """Read ``class, xmin, ymin, xmax, ymax[, quality[, angle]]`` a line; classes from 0, the last pixel included.

    Raises:
        JobError: there is no such file, or a line is not in this format; file and line are named.
    """
    objects = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"annotation file {path} line {number}"
        columns = [column.strip() for column in line.split(",")]
        if len(columns) < _LEAST_COLUMNS:
            raise _fault(place, f"there must be a class and four corners, got {line.strip()[:80]!r}")
        corners = [_number(column, place) for column in columns[1:_LEAST_COLUMNS]]
        objects.append(LabelledObject(_label_of_index(columns[0], len(labels), place), _box(corners)))
    return objects


def read_voc(path: str, labels: Mapping[str, int]) -> list[LabelledObject]:
    """Read an xml of Pascal VOC; here pixels count from 0, the last one included.

    Raises:
        JobError: there is no such file, or it is not in this format; file, object and field are named.
    """
    try:
        size, items, faults = read_xml(Path(path))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (ValueError, OSError) as error:
        raise JobError(ReturnCode.ANNOTATION, str(error)) from error
    place = f"annotation file {path}"
    if size is None:
        del faults[0]  # the image itself says how large it is
    if faults:
        raise _fault(place, faults[0])
    objects = []
    for number, item in enumerate(items, start=1):
        label = labels.get(class_name_key(item.name))
        if label is None:
            raise _fault(f"{place} object {number}", _unknown_class(item.name, labels))
        # The reader takes one off, since files from elsewhere count from 1.
        objects.append(LabelledObject(label, _box([corner + 1 for corner in item.corners])))
    return objects


def unknown_class(place: str, name: str, labels: Mapping[str, int]) -> JobError:
    """What is raised for an object of a class that the job does not have."""
    return _fault(place, _unknown_class(name, labels))


def _unknown_class(name: str, labels: Mapping[str, int]) -> str:
    return f"class {name!r} is not among the class_names {', '.join(labels)}"


def _box(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """x, y, width and height of corners whose last pixels belong to the object."""
    x1, y1, x2, y2 = corners
    return x1, y1, x2 - x1 + 1, y2 - y1 + 1


def _label_of_index(text: str, num_classes: int, place: str) -> int:
    if not text.isdecimal() or int(text) >= num_classes:
        raise _fault(place, f"the class must be a number from 0 to {num_classes - 1}, got {text!r}")
    return int(text) + 1


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _fault(place, f"a corner must be a number, got {text!r}")
    return value


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _fault(f"annotation file {path}", f"it cannot be read ({error})") from error


def _missing(path: str) -> JobError:
    return JobError(ReturnCode.DATASET, f"annotation file {path} does not exist")


def _fault(place: str, what: str) -> JobError:
    return JobError(ReturnCode.ANNOTATION, f"{place}: {what}")
