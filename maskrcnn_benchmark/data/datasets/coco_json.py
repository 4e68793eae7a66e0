"""A COCO annotation file, parsed once and packed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, PackedStrings, offsets_of
from maskrcnn_benchmark.structures.polygons import mask_to_polygons


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


def pack_coco_json(ann_file: Path) -> PackedAnnotations:
    """Pack a file in COCO's instance or keypoint format.

    RLE masks, compressed or not, become polygons that rasterise to the same mask; crowds keep no polygons, since
    training leaves them out. Annotations of images that the file does not list are left out, with a warning.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not such a file; the message names the file and the faulty entry.
    """
    data = parse_json(ann_file)
    try:
        return _pack(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"annotation file {ann_file}: {detail}") from error


def _pack(data: dict[str, Any]) -> PackedAnnotations:
    missing = [key for key in ("images", "categories") if key not in data]
    if missing:
        raise ValueError(f"no {' and no '.join(repr(key) for key in missing)}, so it is not in COCO's instance format")
    images = sorted(data["images"], key=lambda image: image["id"])
    image_ids = _ids(images, kind="image")
    category_ids = _ids(data["categories"], kind="category")
    for image in images:
        if not (image.get("height") and image.get("width") and image.get("file_name")):
            raise ValueError(f"image {image['id']} must have height, width and file_name, got {image}")
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids.tolist())}

    every = data.get("annotations", [])
    annotations = [item for item in every if item["image_id"] in row_of_image]
    if len(annotations) < len(every):
        logging.getLogger(__name__).warning(
            "%d annotations belong to images that are not listed and are left out", len(every) - len(annotations)
        )
    rows = np.array([row_of_image[item["image_id"]] for item in annotations], dtype=np.int64)
    annotations = [annotations[i] for i in np.argsort(rows, kind="stable")]
    sizes = np.array([(image["height"], image["width"]) for image in images], dtype=np.int32).reshape(-1, 2)
    coords, ring_lengths, ring_counts = _pack_polygons(annotations, row_of_image=row_of_image, sizes=sizes)
    keypoints = [keypoints_of(item) for item in annotations if item.get("keypoints")]
    return PackedAnnotations(
        image_ids=image_ids,
        image_sizes=sizes,
        file_names=PackedStrings.pack([image["file_name"] for image in images]),
        category_ids=category_ids,
        category_names=PackedStrings.pack([str(item.get("name", item["id"])) for item in data["categories"]]),
        keypoint_names=PackedStrings.pack(["\n".join(item.get("keypoints") or ()) for item in data["categories"]]),
        annotation_offsets=offsets_of(np.bincount(rows, minlength=len(images))),
        boxes=_boxes(annotations),
        labels=_labels(annotations, category_ids),
        iscrowd=np.array([bool(item.get("iscrowd", 0)) for item in annotations], dtype=bool),
        areas=np.array([item.get("area") or 0.0 for item in annotations], dtype=np.float32),
        polygon_offsets=offsets_of(ring_counts),
        ring_offsets=offsets_of(ring_lengths),
        coords=coords,
        keypoint_offsets=offsets_of([len(item.get("keypoints") or ()) // 3 for item in annotations]),
        keypoints=np.concatenate([np.zeros((0, 3), dtype=np.float32), *keypoints]),
    )


def _ids(items: list[dict[str, Any]], *, kind: str) -> np.ndarray:
    ids = [item["id"] for item in items]
    wrong = next((item for item in ids if not isinstance(item, int)), None)
    if wrong is not None:
        raise ValueError(f"{kind} ids must be integers, got {wrong!r}")
    unique, counts = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{kind} id {unique[counts > 1][0]} is listed more than once")
    return np.array(ids, dtype=np.int64)


def _labels(annotations: list[dict[str, Any]], category_ids: np.ndarray) -> np.ndarray:
    label_of = {category: label for label, category in enumerate(category_ids.tolist(), start=1)}
    labels = [label_of.get(item["category_id"], 0) for item in annotations]
    if 0 in labels:
        item = annotations[labels.index(0)]
        raise ValueError(
            f"annotation {item.get('id')} has category_id {item['category_id']}, "
            f"which is not among the {len(category_ids)} listed categories ({_some(category_ids)})"
        )
    return np.array(labels, dtype=np.int64)


def _some(values: np.ndarray, limit: int = 10) -> str:
    return ", ".join(map(str, values[:limit].tolist())) + (", ..." if len(values) > limit else "")


def _boxes(annotations: list[dict[str, Any]]) -> np.ndarray:
    wrong = next((item for item in annotations if len(item.get("bbox") or ()) != 4), None)
    if wrong is not None:
        raise ValueError(
            f"annotation {wrong.get('id')} must have a bbox of 4 numbers (x, y, width, height), got {wrong.get('bbox')}"
        )
    return np.array([item["bbox"] for item in annotations], dtype=np.float32).reshape(-1, 4)


def _pack_polygons(
    annotations: list[dict[str, Any]], *, row_of_image: dict[int, int], sizes: np.ndarray
) -> tuple[np.ndarray, list[int], list[int]]:
    """Return coords float32 [V, 2], vertices of each ring, rings of each annotation."""
    rings: list[np.ndarray] = []
    ring_counts = []
    for item in annotations:
        segmentation = item.get("segmentation")
        own: list[np.ndarray] = []
        if segmentation and not item.get("iscrowd", 0):
            height, width = sizes[row_of_image[item["image_id"]]].tolist()
            try:
                own = polygons_of(segmentation, height=height, width=width)
            except (TypeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"annotation {item.get('id')} has a segmentation that cannot be read: {error}"
                ) from error
        rings.extend(own)
        ring_counts.append(len(own))
    coords = np.concatenate(rings) if rings else np.zeros((0, 2), dtype=np.float32)
    return coords, [len(ring) for ring in rings], ring_counts


def polygons_of(segmentation: Any, *, height: int, width: int) -> list[np.ndarray]:
    """A COCO segmentation of any kind as polygon rings.

    Args:
        segmentation: a list of polygons [x0, y0, x1, y1, ...], or an RLE {"size", "counts"} with counts as a list of
            run lengths or as COCO's compressed string.
        height: of the image.
        width: of the image.

    Returns:
        float32 [V, 2] for each ring; rings of fewer than three vertices are left out.

    Raises:
        ValueError: when it is none of these, or its size is not the image's.
    """
    if isinstance(segmentation, dict):
        return mask_to_polygons(decode_rle(segmentation, height=height, width=width))
    rings = []
    for polygon in segmentation:
        if len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers; x and y alternate, so the count must be even")
        if len(polygon) >= 6:
            rings.append(np.array(polygon, dtype=np.float32).reshape(-1, 2))
    return rings


def keypoints_of(annotation: dict[str, Any]) -> np.ndarray:
    """The keypoints of a COCO annotation, float32 [P, 3]: x, y, visibility; the position is 0 where visibility is.

    Raises:
        ValueError: when they are not numbers, three for each keypoint.
    """
    given = annotation.get("keypoints") or ()
    try:
        points = np.array(given, dtype=np.float32).reshape(-1, 3)
    except (TypeError, ValueError):
        raise ValueError(
            f"annotation {annotation.get('id')} must have keypoints of three numbers each (x, y, visibility), "
            f"in one list, got {str(given)[:60]}"
        ) from None
    points[points[:, 2] == 0] = 0
    return points


def decode_rle(rle: dict[str, Any], *, height: int, width: int) -> np.ndarray:
    """A COCO RLE, compressed or not, as bool [height, width].

    pycocotools decodes too, but fills what faulty runs leave open with whatever lies in memory.

    Raises:
        ValueError: when its size is not the image's, or its runs do not fill it.
    """
    if list(rle["size"]) != [height, width]:
        raise ValueError(f"RLE of size {list(rle['size'])} in an image of (height, width) [{height}, {width}]")
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        counts = _uncompress(counts)
    lengths = np.asarray(counts)
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or lengths.min() < 0:
        raise ValueError("RLE counts must be a string or a list of non-negative integers")
    if lengths.sum() != height * width:
        raise ValueError(f"RLE counts add up to {lengths.sum()}, not to {height} x {width}")
    is_inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(is_inside, lengths).reshape(width, height).T


def _uncompress(counts: str | bytes) -> np.ndarray:
    """Run lengths, int64, of COCO's compressed string.

    Each character holds 5 bits of a number, lowest first, plus 48; bit 5 says that more follow, and bit 4 of the last
    one is the sign. From the fourth number on it is the difference to the number two places before.
    """
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 0x20 == 0)
    if not len(codes) or ends[-1:].tolist() != [len(codes) - 1] or codes.min() < 0 or codes.max() > 0x3F:
        raise ValueError(f"RLE counts are not a string in COCO's compression: {counts[:40]!r}")
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * digits), starts)
    numbers -= np.where(codes[ends] & 0x10, 1 << (5 * (digits[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
