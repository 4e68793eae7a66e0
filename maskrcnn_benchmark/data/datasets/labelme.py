"""Data sets drawn with labelme: one json an image, beside it or in a folder of their own.

Source of the shapes' meanings and of the widths of strokes and points: labelme's own `utils.shape_to_mask`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_benchmark.data.datasets.annotated_image import (
    AnnotatedImage,
    AnnotatedObject,
    box_around,
    corners_of,
    points_of,
)
from maskrcnn_benchmark.data.datasets.coco_json import parse_json
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderDataset, FolderSource, ImageFile, match_files
from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.data.image_header import check_pixels, size_in_header
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

_STROKE = 10  # width of a line in pixels
_POINT = 5  # radius of a point in pixels
_ROUND = 0.1  # a circle's polygon stays so near to it, in pixels
# Names by which labelme's own files mark what is no object.
_NO_CLASSES = ("__ignore__", "_background_")


class LabelmeDataset(FolderDataset):
    """Shapes of labelme's json files; images without one are left out.

    Shapes of one name with the same ``group_id`` are one object. A rectangle is a box without a mask (see
    :class:`FolderDataset`); lines and points are taken as wide as labelme draws them.

    Args:
        json_dir: folder of the json files.
        img_dir: folder of the images; None: they lie beside the json files.
        classes, options: see :class:`FolderDataset`.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderDataset`.
    """

    names_from_objects = True

    def __init__(
        self,
        json_dir: str | Path,
        img_dir: str | Path | None = None,
        *,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(find_labelme(json_dir, img_dir), classes=classes, **options)


def find_labelme(json_dir: str | Path, img_dir: str | Path | None = None) -> FolderSource:
    """Pair images and json files; see :class:`LabelmeDataset`."""
    place, root = Path(json_dir), Path(img_dir if img_dir is not None else json_dir)
    files, errors = match_files(root, place, [".json"])
    return FolderSource(
        root=root,
        place=place,
        files=tuple(file for file in files if file.annotation is not None),
        read=read_labelme,
        settings=("labelme",),
        suffixes=(".json",),
        errors=tuple(errors),
        unlabelled=tuple(file.name for file in files if file.annotation is None),
    )


def read_labelme(file: ImageFile) -> AnnotatedImage:
    """Read the json of one image; without a size in it, that of the image counts.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when it is not such a json.
    """
    data = parse_json(file.annotation)
    shapes = data.get("shapes")
    if not isinstance(shapes, list):
        raise ValueError(f"annotation file {file.annotation} has no list 'shapes', so it is not labelme's")
    size = data.get("imageHeight"), data.get("imageWidth")
    if not all(type(side) is int and side > 0 for side in size):
        size = read_image_size(file.image)
    check_pixels(*size, f"annotation file {file.annotation}")
    image = AnnotatedImage(size)
    groups: dict[Any, list[tuple[str, list[np.ndarray] | None, np.ndarray]]] = {}
    for number, shape in enumerate(shapes, start=1):
        who = f"annotation file {file.annotation}: shape {number}"
        try:
            name, group, parts = _read_shape(shape, image, who)
        except (KeyError, TypeError, ValueError) as error:
            detail = f"there is no {error}" if isinstance(error, KeyError) else error
            image.errors.append(f"{who} ({_name_of(shape)}): {detail}")
            continue
        if parts is not None:
            groups.setdefault((name, group) if group is not None else (number,), []).append((name, *parts))
    image.objects = [_join(parts) for parts in groups.values()]
    return image


def _name_of(shape: Any) -> str:
    return str(shape.get("label")) if isinstance(shape, dict) else "no mapping"


def _read_shape(
    shape: dict[str, Any], image: AnnotatedImage, who: str
) -> tuple[str, Any, tuple[list[np.ndarray] | None, np.ndarray] | None]:
    """Name, group, and (rings or None, box) of a shape; None in place of the last for one that is left out."""
    name, kind, group = shape["label"], shape.get("shape_type") or "polygon", shape.get("group_id")
    if not isinstance(name, str) or not name:
        raise ValueError(f"its label must be a name, got {name!r}")
    if not isinstance(kind, str) or not isinstance(group, (int, str, type(None))):
        raise ValueError(f"shape_type must be a name and group_id a number or nothing, got {kind!r} and {group!r}")
    if name in _NO_CLASSES:
        return name, group, None
    points = points_of(shape["points"])
    if kind == "rectangle":
        if len(points) < 2:
            raise ValueError("a rectangle needs two corners")
        return name, group, (None, box_around([points]))
    if kind not in _RINGS:
        raise ValueError(f"shape_type {kind!r} is not known; there are rectangle, {', '.join(_RINGS)}")
    if kind in _OPEN:
        image.warnings.append(f"{who} ({name}) is open, a {kind}: its stroke of {_OPEN[kind]} pixels is taken")
    rings = _RINGS[kind](points, shape, image.size)
    if not rings:
        image.warnings.append(f"{who} ({name}) is left out: a {kind} of {len(points)} points has no area")
        return name, group, None
    return name, group, (rings, box_around(rings))


def _join(parts: list[tuple[str, list[np.ndarray] | None, np.ndarray]]) -> AnnotatedObject:
    """The shapes of a group as one object."""
    name, rings, box = parts[0]
    if len(parts) == 1:
        return AnnotatedObject(name, box, rings)
    has_mask = any(own is not None for _, own, _ in parts)
    united = [ring for _, own, box in parts for ring in (own if own is not None else [corners_of(box)])]
    return AnnotatedObject(name, box_around(united), united if has_mask else None)


def _polygon(points: np.ndarray, shape: dict[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    return [points] if len(points) >= 3 else []


def _circle(points: np.ndarray, shape: dict[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    """A circle by its centre and a point on it."""
    if len(points) != 2:
        raise ValueError(f"a circle needs a centre and a point on it, got {len(points)} points")
    return _disc(points[0], float(np.linalg.norm(points[1] - points[0])))


def _disc(centre: np.ndarray, radius: float) -> list[np.ndarray]:
    if radius <= 0:
        return []
    number = max(12, math.ceil(math.pi / math.acos(max(1 - _ROUND / radius, 0.0))))
    angles = np.arange(number) * (2 * math.pi / number)
    return [(centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)]


def _stroke(points: np.ndarray, shape: dict[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    if len(points) < 2:
        return []
    canvas = np.zeros(size, dtype=np.uint8)
    cv2.polylines(canvas, [np.round(points).astype(np.int32)], False, 1, _STROKE)
    return mask_to_polygons(canvas)


def _points(points: np.ndarray, shape: dict[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    return [ring for point in points for ring in _disc(point, _POINT)]


def _bitmap(points: np.ndarray, shape: dict[str, Any], size: tuple[int, int]) -> list[np.ndarray]:
    """A mask: the corners of its box, and a png of what is inside it."""
    try:
        data = base64.b64decode(shape["mask"], validate=True)
        if (claimed := size_in_header(data)) is not None:
            check_pixels(*claimed, "its mask")
        bitmap = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except (binascii.Error, cv2.error):
        bitmap = None
    if bitmap is None:
        raise ValueError("its mask is not a png in base64")
    return [ring + points[0] for ring in mask_to_polygons(bitmap)]


_RINGS = {
    "polygon": _polygon,
    "oriented_rectangle": _polygon,
    "circle": _circle,
    "linestrip": _stroke,
    "line": _stroke,
    "point": _points,
    "points": _points,
    "mask": _bitmap,
}
# Shapes without an inside, and how wide they are.
_OPEN = {"linestrip": _STROKE, "line": _STROKE, "point": 2 * _POINT, "points": 2 * _POINT}
