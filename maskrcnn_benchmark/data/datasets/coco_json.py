"""A COCO annotation file, parsed once and packed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskrcnn_benchmark.data.datasets.coco_annotations import FAULTS, AnnotationArrays, convert, join
from maskrcnn_benchmark.data.datasets.json_stream import UnsplittableError, read_members
from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations, PackedStrings, offsets_of
from maskrcnn_benchmark.data.image_header import check_pixels
from maskrcnn_benchmark.utils.collection import no_collection

_LARGE = 32 << 20  # bytes; a smaller file is parsed at once


def parse_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not JSON (the message says at which byte) or holds something else than an object.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"annotation file {path} does not exist") from None
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        position = len(error.doc[: error.pos].encode())
        raise ValueError(
            f"annotation file {path} is not valid JSON at byte {position} of {len(text)} "
            f"(line {error.lineno}, column {error.colno}): {error.msg}"
        ) from None
    if not isinstance(data, dict):
        raise ValueError(f"annotation file {path} must hold a JSON object, got {type(data).__name__}")
    return data


_Members = Iterable[tuple[str, Any]]


def pack_coco_json(ann_file: Path, *, fill: Callable[[_Members], _Members] | None = None) -> PackedAnnotations:
    """Pack a file in COCO's instance or keypoint format.

    RLE masks, compressed or not, become polygons that rasterise to the same mask; crowds keep no polygons, since
    training leaves them out. Annotations of images that the file does not list are left out, with a warning. A large
    file is parsed in pieces.

    Args:
        ann_file: the file.
        fill: changes the members of the file's object (see `read_members`) before they are packed.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not such a file; the message names the file and the faulty entry.
    """
    try:
        with no_collection():
            if ann_file.is_file() and ann_file.stat().st_size >= _LARGE:
                with contextlib.suppress(UnsplittableError):
                    return _pack(_filled(read_members(ann_file), fill))
            return _pack(_filled(parse_json(ann_file).items(), fill))
    except FAULTS as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        if str(ann_file) in detail:
            raise
        raise ValueError(f"annotation file {ann_file}: {detail}") from error


def _filled(members: _Members, fill: Callable[[_Members], _Members] | None) -> _Members:
    return members if fill is None else fill(members)


def _pack(members: _Members) -> PackedAnnotations:
    """Pack the members of the file's object; a list may come in several parts."""
    images: list[_Image] = []
    categories: list[dict[str, Any]] = []
    pieces: list[AnnotationArrays] = []
    seen = set()
    for key, value in members:
        seen.add(key)
        if key == "images":
            images.extend(map(_image, _list(key, value)))
        elif key == "categories":
            categories.extend(_list(key, value))
        elif key == "annotations":
            pieces.append(convert(value))
    missing = [key for key in ("images", "categories") if key not in seen]
    if missing:
        raise ValueError(f"no {' and no '.join(repr(key) for key in missing)}, so it is not in COCO's instance format")
    images.sort(key=lambda image: image[0])
    image_ids = _unique([image_id for image_id, _, _, _ in images], kind="image")
    sizes = np.array([size for _, *size, _ in images], dtype=np.int32).reshape(-1, 2)
    category_ids = _unique([_category_id(item) for item in categories], kind="category")
    names = [name for *_, name in images]
    del images, value
    annotations = join(pieces, image_ids=image_ids, sizes=sizes)
    rows = np.searchsorted(image_ids, annotations.image_ids)
    return PackedAnnotations(
        image_ids=image_ids,
        image_sizes=sizes,
        file_names=PackedStrings.pack(names),
        category_ids=category_ids,
        category_names=PackedStrings.pack([str(item.get("name", item["id"])) for item in categories]),
        keypoint_names=PackedStrings.pack(["\n".join(item.get("keypoints") or ()) for item in categories]),
        annotation_offsets=offsets_of(np.bincount(rows, minlength=len(image_ids))),
        boxes=annotations.boxes,
        labels=_labels(annotations, category_ids),
        iscrowd=annotations.iscrowd,
        areas=annotations.areas,
        polygon_offsets=offsets_of(annotations.ring_counts),
        ring_offsets=offsets_of(annotations.ring_lengths),
        coords=annotations.coords,
        keypoint_offsets=offsets_of(annotations.keypoint_counts),
        keypoints=annotations.keypoints,
    )


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key!r} must be a list, got {type(value).__name__}")
    return value


_Image = tuple[int, int, int, str]


def _image(item: Any) -> _Image:
    """(id, height, width, file name) of an entry of "images"."""
    if not isinstance(item, dict):
        raise ValueError(f"an image must be an object, got {str(item)[:60]}")
    image_id = _id(item, kind="image")
    height, width, name = (item.get(key) for key in ("height", "width", "file_name"))
    if not (height and width and name):
        raise ValueError(f"image {image_id} must have height, width and file_name, got {item}")
    for key, side in (("height", height), ("width", width)):
        if type(side) not in (int, float) or side != int(side) or side < 1:
            raise ValueError(f"image {image_id} must have a {key} in pixels, got {str(side)[:60]!r}")
    check_pixels(int(height), int(width), f"image {image_id}")
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"image {image_id} must have a file_name that is one, got {str(name)[:60]!r}")
    return image_id, int(height), int(width), name


def _category_id(item: Any) -> int:
    if not isinstance(item, dict):
        raise ValueError(f"a category must be an object, got {str(item)[:60]}")
    return _id(item, kind="category")


def _id(item: dict[str, Any], *, kind: str) -> int:
    value = item["id"]
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{kind} ids must be integers, got {value!r}")
    return value


def _unique(ids: list[int], *, kind: str) -> np.ndarray:
    unique, counts = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{kind} id {unique[counts > 1][0]} is listed more than once")
    return np.array(ids, dtype=np.int64)


def _labels(annotations: AnnotationArrays, category_ids: np.ndarray) -> np.ndarray:
    """Label 1 .. K of each annotation, int64 [A]."""
    order = np.argsort(category_ids)
    found = np.searchsorted(category_ids, annotations.category_ids, sorter=order)
    places = order[np.minimum(found, len(order) - 1)] if len(order) else np.zeros_like(found)
    wrong = category_ids[places] != annotations.category_ids if len(order) else np.ones(len(found), dtype=bool)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"annotation {annotations.ids[index]} has category_id {annotations.category_ids[index]}, "
            f"which is not among the {len(category_ids)} listed categories ({_some(category_ids)})"
        )
    return places + 1


def _some(values: np.ndarray, limit: int = 10) -> str:
    return ", ".join(map(str, values[:limit].tolist())) + (", ..." if len(values) > limit else "")
