"""Annotations of Pascal VOC: the list of a split and one xml an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import numpy as np

from maskrcnn_benchmark.data.datasets.packed_dataset import ImageAnnotations

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


def parse_xml(path: Path, *, label_of: Mapping[str, int], file_name: str) -> ImageAnnotations:
    """Read the annotations of one image.

    Boxes lose one pixel on each side: VOC counts from 1. An object without the word ``difficult`` is not difficult.

    Args:
        path: the xml.
        label_of: label by class name.
        file_name: of the image.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not such a file; the message names the file, the object and the field.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes(), parser=ElementTree.XMLParser(target=_PlainTree()))
        height, width = (_integer(root, f"size/{side}", least=1) for side in ("height", "width"))
        objects = [_object(item, number, label_of) for number, item in enumerate(root.findall("object"), start=1)]
    except (ValueError, ElementTree.ParseError) as error:
        what = "is not valid XML: " if isinstance(error, ElementTree.ParseError) else ""
        raise ValueError(f"annotation file {path}: {what}{error}") from None
    labels, boxes, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return ImageAnnotations(
        file_name=file_name,
        size=(height, width),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        is_ignored=np.array(difficult, dtype=bool),
    )


def _object(item: ElementTree.Element, number: int, label_of: Mapping[str, int]) -> tuple[int, list[float], bool]:
    """(label, box counted from 0, difficult)."""
    name = _text(item, "name").lower()
    try:
        if name not in label_of:
            raise ValueError(f"name {name!r} is not among the {len(label_of)} classes {', '.join(label_of)}")
        box = [_number(item, f"bndbox/{side}") - 1 for side in _CORNERS]
        return label_of[name], box, item.find("difficult") is not None and _integer(item, "difficult", least=0) == 1
    except ValueError as error:
        raise ValueError(f"object {number} ({name or 'without a name'}): {error}") from None


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
