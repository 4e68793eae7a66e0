"""Detections of many images as arrays: a tenth of the memory of COCO's result lists, and no loop to read them.

Letters: D detections, R masks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.data.datasets.json_stream import UnsplittableError, read_items
from maskrcnn_benchmark.utils.collection import no_collection


@dataclass(frozen=True)
class Masks:
    """COCO's compressed run lengths of many masks.

    Attributes:
        text: uint8, one mask after the other.
        offsets: int64 [R + 1], where each begins.
        sizes: int64 [R, 2], height and width of its image.
    """

    text: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def pack(cls, texts: Sequence[bytes], sizes: Sequence[Sequence[int]]) -> Masks:
        """From the text of each mask and its (height, width)."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        flat = np.fromiter(chain.from_iterable(sizes), np.int64, 2 * len(texts))
        return cls(_join(texts), np.concatenate([[0], lengths.cumsum()]), flat.reshape(-1, 2))

    @classmethod
    def join(cls, parts: Sequence[Masks]) -> Masks:
        """One after the other."""
        ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [part.offsets[1:] + begin for part, begin in zip(parts, ends, strict=False)]
        text = np.concatenate([np.zeros(0, np.uint8), *(part.text for part in parts)])
        sizes = np.concatenate([np.zeros((0, 2), np.int64), *(part.sizes for part in parts)])
        return cls(text, np.concatenate([np.zeros(1, np.int64), *offsets]), sizes)

    def take(self, rows: np.ndarray) -> Masks:
        """The masks of these rows, in their order."""
        text, begin, end = memoryview(self.text), self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        parts = _join([text[a:b] for a, b in zip(begin, end, strict=True)])
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        return Masks(parts, np.concatenate([[0], lengths.cumsum()]), self.sizes[rows])

    def texts(self) -> list[str]:
        """The text of each mask."""
        whole = self.text.tobytes().decode("ascii")
        return [whole[a:b] for a, b in pairwise(self.offsets.tolist())]


@dataclass(frozen=True)
class Detections:
    """COCO results of one kind.

    Attributes:
        image_ids: [D], the data set's own.
        category_ids: int64 [D], the data set's own.
        scores: float64 [D].
        boxes: float64 [D, 4] as x, y, width, height; of "bbox".
        masks: of "segm".
        keypoints: float64 [D, 3 * P] as x, y, 1; of "keypoints".
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    masks: Masks | None = None
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def iou_type(self) -> str:
        """Of which kind they are: "bbox", "segm" or "keypoints"."""
        return "bbox" if self.boxes is not None else "segm" if self.masks is not None else "keypoints"

    @classmethod
    def from_list(cls, results: Sequence[dict[str, Any]], iou_type: str) -> Detections:
        """From a result list as in bbox.json, segm.json or keypoints.json."""
        count = len(results)
        common = (
            np.array([*map(itemgetter("image_id"), results)]) if count else np.zeros(0, np.int64),
            np.fromiter(map(itemgetter("category_id"), results), np.int64, count),
            np.fromiter(map(itemgetter("score"), results), np.float64, count),
        )
        if iou_type == "bbox":
            flat = chain.from_iterable(map(itemgetter("bbox"), results))
            return cls(*common, boxes=np.fromiter(flat, np.float64, 4 * count).reshape(-1, 4))
        if iou_type == "segm":
            masks = [*map(itemgetter("segmentation"), results)]
            return cls(*common, masks=Masks.pack([*map(_text, masks)], [*map(itemgetter("size"), masks)]))
        points = np.array([*map(itemgetter("keypoints"), results)], dtype=np.float64)
        points = points if count else np.zeros((0, 0))
        return cls(*common, keypoints=points)

    @classmethod
    def read(cls, path: str | os.PathLike[str], iou_type: str) -> Detections:
        """From a file such as bbox.json or segm.json, piece by piece.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no list of COCO results of this kind.
        """
        path = Path(path)
        try:
            with no_collection():
                try:
                    return cls.join([cls.from_list(items, iou_type) for items in read_items(path)], iou_type)
                except UnsplittableError:
                    return cls.from_list(orjson.loads(path.read_bytes()), iou_type)
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a list of COCO results of the kind {iou_type}: {error!r}") from error

    @classmethod
    def join(cls, parts: Sequence[Detections], iou_type: str) -> Detections:
        """One after the other; none gives an empty one of this kind."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.from_list([], iou_type)
        columns: dict[str, Any] = {}
        for name in ("image_ids", "category_ids", "scores", "boxes", "keypoints"):
            if getattr(parts[0], name) is not None:
                columns[name] = np.concatenate([getattr(part, name) for part in parts])
        if parts[0].masks is not None:
            columns["masks"] = Masks.join([part.masks for part in parts])
        return cls(**columns)

    def to_list(self) -> list[dict[str, Any]]:
        """COCO's result list."""
        if self.boxes is not None:
            name, values = "bbox", self.boxes.tolist()
        elif self.masks is not None:
            pairs = zip(self.masks.sizes.tolist(), self.masks.texts(), strict=True)
            name, values = "segmentation", [{"size": size, "counts": text} for size, text in pairs]
        else:
            name, values = "keypoints", self.keypoints.tolist()
        columns = (self.image_ids.tolist(), self.category_ids.tolist(), values, self.scores.tolist())
        with no_collection():
            return [
                {"image_id": image_id, "category_id": category, name: value, "score": score}
                for image_id, category, value, score in zip(*columns, strict=True)
            ]


def _join(texts: Sequence[bytes | memoryview]) -> np.ndarray:
    """All texts in one uint8 array, which can be written to, as torch wants it."""
    whole = bytearray().join(texts)
    return np.frombuffer(whole, dtype=np.uint8) if whole else np.zeros(0, np.uint8)


def _text(mask: dict[str, Any]) -> bytes:
    counts = mask["counts"]
    if isinstance(counts, list):
        counts = mask_utils.frPyObjects(mask, *mask["size"])["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else counts
