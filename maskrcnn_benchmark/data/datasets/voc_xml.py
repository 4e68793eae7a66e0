"""Annotations of Pascal VOC: the list of a split and one xml an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np

from maskrcnn_benchmark.data.datasets.packed_dataset import ImageAnnotations
from maskrcnn_benchmark.data.image_header import check_pixels

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_split(path: Path) -> list[str]:
    """Image ids of a split: the first word of each line.

    Raises:
        FileNotFoundError: when there is no such file; the message names the splits that there are.
        ValueError: when it lists no image, or one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        splits = ", ".join(sorted(each.stem for each in path.parent.glob("*.txt") if "_" not in each.stem))
        there = f"the splits there are {splits}" if splits else "there is no split in that folder"
        raise FileNotFoundError(f"split file {path} does not exist; {there}") from None
    ids = [line.split()[0] for line in lines if line.strip()]
    if not ids:
        raise ValueError(f"split file {path} lists no image")
    if len(set(ids)) < len(ids):
        raise ValueError(f"split file {path} lists image {next(i for i in ids if ids.count(i) > 1)} more than once")
    return ids


class _PlainTree(ElementTree.TreeBuilder):
    """Builds a tree; refuses a document type, and with it every entity, so that nothing is expanded or fetched."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it declares a document type, which is not read; delete the line <!DOCTYPE ...>")


@dataclass(frozen=True)
class XmlObject:
    """An object of such a file: name as it stands there, corners counted from 0, whether it is difficult."""

    name: str
    corners: tuple[float, float, float, float]
    is_difficult: bool


def read_xml(path: Path) -> tuple[tuple[int, int] | None, list[XmlObject], list[str]]:
    """Read the annotations of one image, whatever its classes.

    Boxes lose one pixel on each side: VOC counts from 1. An object without the word ``difficult`` is not difficult.

    Returns:
        (height, width), or None where a side is missing or not positive; the objects that can be read; and what is
        wrong with the others and with the size, each with the object and the field.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not XML, or of a picture with more pixels than any sound one.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes(), parser=ElementTree.XMLParser(target=_PlainTree()))
    except (ValueError, LookupError, ElementTree.ParseError) as error:  # LookupError: an encoding that is none
        what = "is not valid XML: " if isinstance(error, ElementTree.ParseError) else ""
        raise ValueError(f"annotation file {path}: {what}{error}") from None
    size, objects, faults = None, [], []
    try:
        size = _integer(root, "size/height", least=1), _integer(root, "size/width", least=1)
    except ValueError as error:
        faults.append(str(error))
    if size is not None:
        check_pixels(*size, f"annotation file {path}")
    for number, item in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_object(item))
        except ValueError as error:
            faults.append(f"object {number} ({_text(item, 'name').lower() or 'without a name'}): {error}")
    return size, objects, faults


def parse_xml(path: Path, *, label_of: Mapping[str, int], file_name: str) -> ImageAnnotations:
    """Read the annotations of one image as :func:`read_xml` does; names of classes count in small letters.

    Args:
        path: the xml.
        label_of: label by class name.
        file_name: of the image.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not such a file; the message names the file, the object and the field.
    """
    size, objects, faults = read_xml(path)
    names = [item.name.lower() for item in objects]
    faults += [
        f"object {number} ({name or 'without a name'}): name {name!r} is not among the {len(label_of)} classes "
        f"{', '.join(label_of)}"
        for number, name in enumerate(names, start=1)
        if name not in label_of
    ]
    if size is None or faults:
        raise ValueError(f"annotation file {path}: {faults[0]}")
    return ImageAnnotations(
        file_name=file_name,
        size=size,
        boxes=np.array([item.corners for item in objects], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label_of[name] for name in names], dtype=np.int64),
        is_ignored=np.array([item.is_difficult for item in objects], dtype=bool),
    )


def _object(item: ElementTree.Element) -> XmlObject:
    x1, y1, x2, y2 = (_number(item, f"bndbox/{side}") - 1 for side in _CORNERS)
    is_difficult = item.find("difficult") is not None and _integer(item, "difficult", least=0) == 1
    return XmlObject(_text(item, "name"), (x1, y1, x2, y2), is_difficult)


def _text(item: ElementTree.Element, field: str) -> str:
    return (item.findtext(field) or "").strip()


def _number(item: ElementTree.Element, field: str) -> float:
    text = _text(item, field)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{field} must be a number, got {text!r}" if text else f"there is no {field}")
    return value


def _integer(item: ElementTree.Element, field: str, *, least: int) -> int:
    value: Any = _number(item, field)
    if value != int(value) or value < least:
        raise ValueError(f"{field} must be an integer of at least {least}, got {_text(item, field)!r}")
    return int(value)
