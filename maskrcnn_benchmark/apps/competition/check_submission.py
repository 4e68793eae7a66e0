"""Whether a submission is one: read from its file, knowing nothing of how it was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from maskrcnn_benchmark.apps.competition.submission import MAX_PER_IMAGE
from maskrcnn_benchmark.apps.competition.test_images import TestImages

_NUM_CATEGORIES = 14


def find_faults(path: Path, listed: TestImages, keys: Sequence[str], *, max_bytes: int | None = None) -> list[str]:
    """What is wrong with a submission, a sentence each; none: it is sound.

    Args:
        path: the file.
        listed: the images of the competition.
        keys: of its objects.
        max_bytes: the file may have; None: any number.
    """
    try:
        content = path.read_bytes()
        rows = orjson.loads(content)
    except (OSError, ValueError) as error:
        return [f"{path} cannot be read: {error}"]
    faults = []
    if max_bytes is not None and len(content) > max_bytes:
        faults.append(f"{path} has {len(content)} bytes, more than {max_bytes}")
    if not isinstance(rows, list):
        return [*faults, f"{path} holds a {type(rows).__name__}, not a list"]
    known, counts = set(listed.ids), Counter()
    for number, row in enumerate(rows):
        fault = _fault_of(row, known, keys)
        if fault:
            faults.append(f"{path}: object {number} {fault}: {str(row)[:120]}")
            break
        counts[row["image_id"]] += 1
    crowded = [image_id for image_id, count in counts.items() if count > MAX_PER_IMAGE]
    if crowded:
        faults.append(f"{path}: image {crowded[0]} has {counts[crowded[0]]} boxes, more than {MAX_PER_IMAGE}")
    return faults


def _fault_of(row: Any, known: set[Any], keys: Sequence[str]) -> str:
    if not isinstance(row, dict) or tuple(row) != tuple(keys):
        return f"has not the keys {', '.join(keys)}"
    if row["image_id"] not in known:
        return "has an image_id that no image has"
    if type(row["category_id"]) is not int or not 1 <= row["category_id"] <= _NUM_CATEGORIES:
        return f"has a category_id that is none of 1 to {_NUM_CATEGORIES}"
    box, score = row["bbox"], row["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) and side >= 0 for side in box):
        return "has no bbox of x, y, width and height"
    if any(round(side, 1) != side for side in box):
        return "has a bbox with more than one decimal"
    if type(score) not in (int, float) or not 0 <= score <= 1 or round(score, 4) != score:
        return "has no score between 0 and 1 with four decimals"
    return ""
