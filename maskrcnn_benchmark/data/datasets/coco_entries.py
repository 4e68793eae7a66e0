"""The entries of a COCO annotation file: what they must hold, and how they become arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from maskrcnn_benchmark.structures.polygons import mask_to_polygons

# Further from the image than this, in pixels, is a mistake of units, not of a hand.
FARTHEST = 1e6


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
        if list(segmentation["size"]) != [height, width]:
            raise wrong_size(segmentation["size"], height, width)
        return mask_to_polygons(decode_rle(segmentation, height=height, width=width))
    return [numbers_of(polygon).reshape(-1, 2).astype(np.float32) for polygon in rings_of(segmentation)]


def wrong_size(size: Sequence[int], height: int, width: int) -> ValueError:
    """What is raised for an RLE of ``size`` in an image of another."""
    return ValueError(f"RLE of size {list(size)} in an image of (height, width) [{height}, {width}]")


def rings_of(segmentation: Any) -> Iterator[Sequence[float]]:
    """The polygons [x0, y0, x1, y1, ...] of three vertices or more among a list of polygons.

    Raises:
        ValueError: when one has an odd count of numbers.
    """
    for polygon in segmentation:
        if len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers; x and y alternate, so the count must be even")
        if len(polygon) >= 6:
            yield polygon


def numbers_of(values: Sequence[Any]) -> np.ndarray:
    """Numbers of a JSON file, float64.

    Raises:
        ValueError: when one is no number, or further out than a million.
    """
    numbers = np.array(values)
    if numbers.size and numbers.dtype.kind not in "iuf":
        raise ValueError(f"it must hold numbers only, got {str(list(values))[:60]}")
    numbers = numbers.astype(np.float64)
    if not (np.abs(numbers) < FARTHEST).all():  # nor where one is not a number
        raise ValueError(f"its numbers must be finite and within a million pixels, got {str(list(values))[:60]}")
    return numbers


def keypoints_of(annotation: dict[str, Any]) -> np.ndarray:
    """The keypoints of a COCO annotation, float32 [P, 3]: x, y, visibility; the position is 0 where visibility is.

    Raises:
        ValueError: when they are not numbers, three for each keypoint.
    """
    given = annotation.get("keypoints") or ()
    try:
        points = numbers_of(given).reshape(-1, 3).astype(np.float32)
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
    if lengths.max() > height * width or lengths.sum() != height * width:
        raise ValueError(
            f"RLE of size [{height}, {width}]: counts add up to {lengths.sum()}, not to {height} x {width}"
        )
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
