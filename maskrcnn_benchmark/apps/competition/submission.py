"""The submission: a JSON list of boxes, in an order that two machines agree on, cut to a size in bytes.

Letters: R boxes of all images together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.utils.files import write_atomically

logger = logging.getLogger("maskrcnn_benchmark.inference")

WHOLE, CUT = "best_preds.json", "best_preds_cut.json"
KEYS = ("image_id", "category_id", "bbox", "score", "segmentation")
MAX_PER_IMAGE = 50
_BOX_STEPS, _SCORE_STEPS = 10, 10_000  # one decimal, four decimals
_OUTSIDE = len(b"[]")


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        boxes, bytes: of the whole submission.
        cut_boxes, cut_bytes: of the part that fits.
        threshold: lowest score in it; None where it is empty.
    """

    boxes: int
    bytes: int
    cut_boxes: int
    cut_bytes: int
    threshold: float | None


@dataclass(frozen=True)
class Boxes:
    """The boxes of a submission in its order: by image, then from the best on, then by category and place.

    Args:
        places: int64 [R], of the image among the ids of the competition in ascending order.
        categories: int64 [R].
        boxes: float64 [R, 4], x, y, width, height, rounded to a tenth of a pixel.
        scores: float64 [R], rounded to four decimals.
    """

    places: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def join(cls, found: Mapping[int, Detections], *, max_per_image: int = MAX_PER_IMAGE) -> Boxes:
        """Round, sort and take the best of each image.

        Args:
            found: boxes by the place of their image.
            max_per_image: boxes of an image.
        """
        items = [item for item in found.items() if len(item[1].scores)]
        parts = [part for _, part in items]
        places = np.repeat([place for place, _ in items], [len(part.scores) for part in parts]).astype(np.int64)
        categories = np.concatenate([np.zeros(0, np.int64), *(part.category_ids for part in parts)])
        boxes = np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)])
        boxes = np.rint(boxes * _BOX_STEPS) / _BOX_STEPS
        scores = np.concatenate([np.zeros(0), *(part.scores for part in parts)])
        scores = np.rint(scores * _SCORE_STEPS) / _SCORE_STEPS
        order = np.lexsort((*boxes.T[::-1], categories, -scores, places))
        starts = np.searchsorted(places[order], places[order])  # of each one's image
        order = order[np.arange(len(order)) - starts < max_per_image]
        return cls(places[order], categories[order], boxes[order], scores[order])

    def __len__(self) -> int:
        return len(self.scores)


def encode_boxes(boxes: Boxes, image_ids: Sequence[Any], *, keys: Sequence[str] = KEYS) -> list[bytes]:
    """Each box as a JSON object.

    Args:
        boxes: R of them.
        image_ids: by place.
        keys: of the objects, in this order; a key that means nothing here gets null.
    """
    columns = (boxes.places.tolist(), boxes.categories.tolist(), boxes.boxes.tolist(), boxes.scores.tolist())
    rows = []
    for number, (place, category, box, score) in enumerate(zip(*columns, strict=True), start=1):
        known = {
            "image_id": image_ids[place],
            "category_id": category,
            "bbox": box,
            "score": score,
            "segmentation": [],
            "id": number,
            "area": round(box[2] * box[3], 1),
            "iscrowd": 0,
        }
        rows.append(orjson.dumps({key: known.get(key) for key in keys}))
    return rows


def find_threshold(scores: np.ndarray, sizes: np.ndarray, max_bytes: int) -> float | None:
    """The lowest score from which on all boxes fit into a file; None where not even the best ones do.

    Args:
        scores: [R].
        sizes: int [R], bytes of each box without what separates it from the next.
        max_bytes: of the file.
    """
    order = np.argsort(-scores, kind="stable")
    totals = np.cumsum(sizes[order] + 1) - 1 + _OUTSIDE  # bytes of a file with the best 1, 2, ... boxes
    levels, counts = np.unique(-scores, return_counts=True)
    ends = totals[np.cumsum(counts) - 1] if len(scores) else totals
    fitting = int(np.searchsorted(ends, max_bytes, side="right"))  # a binary search: the more boxes, the more bytes
    return float(-levels[fitting - 1]) if fitting else None


def write_submission(
    folder: Path, boxes: Boxes, image_ids: Sequence[Any], *, max_bytes: int, keys: Sequence[str] = KEYS
) -> Written:
    """Write the whole submission, and what of it fits, each file whole or not at all.

    Args:
        folder: of best_preds.json and best_preds_cut.json; made where it is missing.
        boxes, image_ids, keys: see `encode_boxes`.
        max_bytes: of best_preds_cut.json.

    Raises:
        OSError: a file cannot be written.
    """
    rows = encode_boxes(boxes, image_ids, keys=keys)
    threshold = find_threshold(boxes.scores, np.array([len(row) for row in rows], dtype=np.int64), max_bytes)
    fits = boxes.scores >= threshold if threshold is not None else np.zeros(len(boxes), dtype=bool)
    cut = [row for row, is_in in zip(rows, fits.tolist(), strict=True) if is_in]
    if rows and not cut:
        logger.warning("Not even the best box fits into %d bytes, so %s is empty", max_bytes, CUT)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [_write(folder / name, part) for name, part in ((WHOLE, rows), (CUT, cut))]
    return Written(len(rows), sizes[0], len(cut), sizes[1], threshold)


def _write(path: Path, rows: Sequence[bytes]) -> int:
    content = b"[" + b",".join(rows) + b"]"
    write_atomically(str(path), lambda file: file.write(content))
    return len(content)
