"""Names and ids of a model's classes: kept beside its checkpoints, known for COCO, numbered otherwise."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.checkpoint.files import write_atomically

FILE_NAME = "categories.json"

_COCO_TEXT = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_COCO_NAMES = tuple(_COCO_TEXT.split(", "))
# COCO numbers its 80 categories from 1 to 90; these are not used.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


@dataclass(frozen=True)
class Category:
    """The id in result files and the name of one class."""

    id: int
    name: str


def coco_categories() -> list[Category]:
    """COCO's 80 categories in the order of its annotation files."""
    ids = [number for number in range(1, 91) if number not in _COCO_GAPS]
    return [Category(number, name) for number, name in zip(ids, _COCO_NAMES, strict=True)]


def default_categories(num_classes: int, names: Sequence[str] = ()) -> list[Category]:
    """The categories of a model with `num_classes` classes, background included; at most their names are known."""
    if len(names) == num_classes - 1:
        return [Category(number, name) for number, name in enumerate(names, start=1)]
    if num_classes == len(_COCO_NAMES) + 1:
        return coco_categories()
    return [Category(number, f"class {number}") for number in range(1, num_classes)]


def save_categories(folder: str | os.PathLike[str], dataset: Any) -> None:
    """Write the categories of a data set to `folder`/categories.json, in the order of the labels.

    `dataset` has `categories` (names in the order of the labels 1..K) and `contiguous_category_id_to_json_id`.
    """
    ids = dataset.contiguous_category_id_to_json_id
    content = [{"id": ids[label], "name": name} for label, name in enumerate(dataset.categories, start=1)]
    text = json.dumps(content, indent=1)
    write_atomically(os.path.join(folder, FILE_NAME), lambda file: file.write(text.encode()))


def load_categories(
    folder: str | os.PathLike[str], num_classes: int | None = None, names: Sequence[str] = ()
) -> list[Category]:
    """Read what `save_categories` wrote; without a file, `default_categories` of the other arguments.

    Raises:
        ValueError: the file is damaged or does not hold `num_classes` - 1 categories (None: any number will do).
    """
    path = Path(folder, FILE_NAME)
    if num_classes is not None and not path.is_file():
        return default_categories(num_classes, names)
    try:
        categories = [Category(int(entry["id"]), str(entry["name"])) for entry in json.loads(path.read_text())]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to see numbers instead of names") from error
    if num_classes is not None and len(categories) != num_classes - 1:
        raise ValueError(
            f"{path} names {len(categories)} categories, the model has {num_classes - 1}; "
            "delete it, or put the file of the run beside its checkpoint"
        )
    return categories
