"""What the organisers say about the test images: their ids, and what a submission looks like."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from maskrcnn_benchmark.apps.competition.submission import KEYS
from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.data.datasets.coco_json import parse_json

logger = logging.getLogger("maskrcnn_benchmark.inference")

INFORMATION = "Test_Images_Information.json"
SAMPLE = "sample_submission.json"
_PLACES = ("", "test")  # folders of the data in which the two files may lie, in layouts of different age
_NUMBERS = ("area", "id", "iscrowd")  # keys that can be filled in beside those of every submission


@dataclass(frozen=True)
class TestImages:
    """The images of the competition.

    Args:
        path: of the file that lists them.
        ids: as a submission has them, in ascending order, numbers before words.
        names: file names in that order.
    """

    __test__ = False  # no test of pytest's

    path: Path
    ids: list[Any]
    names: list[str]

    @classmethod
    def read(cls, folder: Path) -> TestImages:
        """Read Test_Images_Information.json below the folder of the data.

        Raises:
            FileNotFoundError: it is at none of its places.
            ValueError: it is damaged, lists nothing, or an id or name twice.
        """
        path = find_file(folder, INFORMATION)
        if path is None:
            places = " or ".join(str(folder / place / INFORMATION) for place in _PLACES)
            raise FileNotFoundError(f"there is no {places}; it gives the images their ids")
        images = parse_json(path).get("images")
        if not isinstance(images, list) or not images:
            raise ValueError(f"{path} lists no images under the key 'images'")
        for image in images:
            if not isinstance(image, dict) or not {"id", "file_name"} <= image.keys():
                raise ValueError(f"{path}: an image must have id and file_name, got {str(image)[:80]}")
            if type(image["id"]) not in (int, str) or not isinstance(image["file_name"], str):
                raise ValueError(f"{path}: an id must be a number or a word, a file_name a word, got {image}")
        rows = sorted(images, key=lambda image: (isinstance(image["id"], str), image["id"]))
        found = cls(path, [row["id"] for row in rows], [row["file_name"] for row in rows])
        for what, values in (("id", found.ids), ("file_name", list(map(same_name, found.names)))):
            value, count = Counter(values).most_common(1)[0]
            if count > 1:
                raise ValueError(f"{path} lists the {what} {value!r} {count} times")
        return found

    def places(self) -> dict[str, int]:
        """Name as `same_name` gives it, to its place in ``ids``."""
        return {same_name(name): place for place, name in enumerate(self.names)}


def same_name(name: str) -> str:
    """A file name without its folder, in the one of Unicode's spellings that all its spellings share."""
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])


def find_file(folder: Path, name: str) -> Path | None:
    """A file of the organisers below the folder of the data; None where there is none."""
    return next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None)


def submission_keys(folder: Path) -> Sequence[str]:
    """The keys of a submission's objects: those of sample_submission.json, where it is there and understood."""
    path = find_file(folder, SAMPLE)
    if path is None:
        return KEYS
    try:
        sample = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s); objects get the keys %s", path, describe(error), ", ".join(KEYS))
        return KEYS
    if not (isinstance(sample, list) and sample and isinstance(sample[0], dict) and sample[0]):
        logger.warning(
            "%s is no list of objects; a submission is, and its objects get the keys %s", path, ", ".join(KEYS)
        )
        return KEYS
    keys = tuple(sample[0])
    unknown = [key for key in keys if key not in (*KEYS, *_NUMBERS)]
    lacking = [key for key in KEYS if key not in keys and key != "segmentation"]
    if unknown or lacking:
        logger.warning(
            "The objects of %s have other keys than expected; unknown, so null: %s; left out, as there: %s",
            path, ", ".join(unknown) or "none", ", ".join(lacking) or "none",
        )  # fmt: skip
    return keys
