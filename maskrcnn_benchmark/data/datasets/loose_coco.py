"""COCO's format with gaps: keys left out, no categories, names whose letters are composed differently on the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.coco import COCODataset
from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.image_size import IMAGE_SUFFIXES, read_image_size
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, fingerprint_of, open_packed
from maskrcnn_benchmark.data.transforms import Compose

logger = logging.getLogger(__name__)

_UNKNOWN = 1  # height and width of an image that is not there, or cannot be read
_READERS = 8  # files whose headers are read at a time: most of the time goes to waiting for a disk
_DIGITS = 19  # of 63 bits
_SHOWN = 5  # names in one line of the log


class LooseCOCODataset(COCODataset):
    """Boxes of a json that is like COCO's; what it leaves out is filled in.

    An image needs ``id`` (a number, or a word, which gets one) and ``file_name``: its size is read from its file. An
    object needs ``image_id``, ``category_id`` and ``bbox``. Without ``categories`` those of the catalogue hold, with
    the ids 1, 2, ...; labels follow the ids, however the file orders them. Masks and keypoints are not read. An image
    of the json whose file is missing, and a file that the json does not list, are left out, and named in the log. Names
    are compared as Unicode does it (NFC): the same Korean name may be written in syllables here and in letters there.

    Args:
        ann_file: the json.
        root: folder of the images.
        remove_images_without_annotations, transforms: as for `COCODataset`.
        classes: names of the categories 1, 2, ... where the file has none.

    Attributes:
        missing: names of the images in the json that have no file.
        unlisted: names of the files that the json does not list.

    Raises:
        FileNotFoundError, ValueError: as for `COCODataset`; also when not one of the images is there.
    """

    def __init__(
        self,
        ann_file: str | Path,
        root: str | Path,
        remove_images_without_annotations: bool,
        transforms: Compose | None = None,
        *,
        classes: Sequence[str] = (),
    ) -> None:
        self._classes = tuple(classes)
        super().__init__(
            ann_file, root, remove_images_without_annotations, transforms, with_masks=False, with_keypoints=False
        )

    def _open(self, root: Path) -> PackedAnnotations:
        files = list_images(root)
        names = {unicodedata.normalize("NFC", name): name for name in files}
        names.update({name: name for name in files})
        fill = _Filler(root, names, self._classes)
        # The names on the disk are part of what is packed; sizes of files tell of an image that was replaced.
        paths = [root / name for name in files]
        fingerprint = fingerprint_of([self.ann_file, *paths], files, self._classes, "loose")
        packed = open_packed(self.ann_file, lambda file: pack_coco_json(file, fill=fill), fingerprint=fingerprint)
        listed = [packed.file_names[row] for row in range(len(packed.file_names))]
        there = set(files)
        self.missing = [name for name in listed if name not in there]
        self.unlisted = sorted(there.difference(listed))
        self._is_there = np.array([name in there for name in listed], dtype=bool)
        self._report(root, len(listed))
        return packed

    def _select(self, rows: np.ndarray) -> None:
        super()._select(rows[self._is_there[rows]])

    def _report(self, root: Path, num_listed: int) -> None:
        if num_listed and len(self.missing) == num_listed:
            raise FileNotFoundError(
                f"none of the {num_listed} images that {self.ann_file} lists is in {root} (the first one: "
                f"{self.missing[0]}); put them there"
            )
        for names, what in (
            (self.missing, f"{self.ann_file} lists %d images that are not in {root}; they are left out: %s"),
            (self.unlisted, f"{root} holds %d images that {self.ann_file} does not list; they are left out: %s"),
        ):
            if names:
                logger.warning(what, len(names), shortened(names))

    def file_names(self) -> list[str]:
        """As for `PackedDataset`, in one spelling everywhere: what goes to training and validation depends on it."""
        return [unicodedata.normalize("NFC", name) for name in super().file_names()]

    @cached_property
    def coco(self) -> COCO:
        """The annotations with everything filled in, as pycocotools sees them."""
        packed = self.packed
        owners = np.repeat(packed.image_ids, np.diff(packed.annotation_offsets)).tolist()
        columns = (packed.boxes.astype(float), packed.category_ids[packed.labels - 1], packed.areas, packed.iscrowd)
        rows = zip(owners, *(column.tolist() for column in columns), strict=True)
        whole = COCO()
        whole.dataset = {
            "images": [
                {"id": image_id, "height": height, "width": width}
                for image_id, (height, width) in zip(
                    packed.image_ids.tolist(), packed.image_sizes.tolist(), strict=True
                )
            ],
            "annotations": [
                {"id": number, "image_id": owner, "bbox": box, "category_id": category, "area": area, "iscrowd": int(c)}
                for number, (owner, box, category, area, c) in enumerate(rows, start=1)
            ],
            "categories": [
                {"id": category, "name": name}
                for category, name in zip(packed.category_ids.tolist(), self.categories, strict=True)
            ],
        }
        whole.createIndex()
        return whole


def list_images(root: Path) -> list[str]:
    """Paths of the image files below a folder, relative to it, with "/", sorted."""
    found = []
    for folder, _, names in os.walk(root):
        below = Path(folder).relative_to(root)
        found += [(below / name).as_posix() for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def shortened(names: Sequence[str]) -> str:
    """The first of many names, for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


class _Filler:
    """Fills in what the members of a json's object leave out.

    Args:
        root: folder of the images.
        names: the files in it, by their names and by these in NFC.
        classes: names of the categories 1, 2, ... where the file has none.
    """

    def __init__(self, root: Path, names: Mapping[str, str], classes: Sequence[str]) -> None:
        self.root = root
        self.names = names
        self.classes = classes

    def __call__(self, members: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        has_categories = False
        for key, value in members:
            if key == "images" and isinstance(value, list):
                with ThreadPoolExecutor(_READERS) as readers:
                    yield key, list(readers.map(self._image, value))
            elif key == "annotations" and isinstance(value, list):
                yield key, [_annotation(item) for item in value]
            elif key == "categories" and value:
                has_categories = True
                yield key, _by_id(value)
            del value
        if not has_categories:
            yield "categories", [{"id": number, "name": name} for number, name in enumerate(self.classes, start=1)]

    def _image(self, item: Any) -> Any:
        """An image with the name of its file and its size; what is none is left to the one who packs."""
        if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
            return item
        name = unicodedata.normalize("NFC", item["file_name"].replace("\\", "/"))
        places = (item["file_name"], name, name.rpartition("/")[2])
        found = next((self.names[place] for place in places if place in self.names), None)
        filled = {"id": _number(item.get("id")), "file_name": found or item["file_name"]}
        height, width = item.get("height"), item.get("width")
        if not (height and width):
            height, width = _size_of(self.root / found) if found else (_UNKNOWN, _UNKNOWN)
        return {**filled, "height": height, "width": width}


def _size_of(path: Path) -> tuple[int, int]:
    try:
        return read_image_size(path)
    except (OSError, ValueError) as error:
        logger.warning("The size of an image is not known: %s", error)
        return _UNKNOWN, _UNKNOWN


def _annotation(item: Any) -> Any:
    """A box without what is not read, and with its area; what is none is left to the one who packs."""
    if not isinstance(item, dict):
        return item
    kept = {key: item[key] for key in ("id", "image_id", "category_id", "bbox", "iscrowd", "area") if key in item}
    if "image_id" in kept:
        kept["image_id"] = _number(kept["image_id"])
    box = kept.get("bbox")
    if not kept.get("area") and isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        kept["area"] = float(box[2] * box[3])
    return kept


def _number(image_id: Any) -> Any:
    """A number for an id that is a word: that in it, or one that depends on the word alone."""
    if not isinstance(image_id, str):
        return image_id
    if image_id.isascii() and image_id.isdigit() and len(image_id) < _DIGITS:
        return int(image_id)
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") >> 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _by_id(categories: Any) -> Any:
    if not isinstance(categories, list) or not all(isinstance(item, dict) and "id" in item for item in categories):
        return categories
    plain = [{name: item[name] for name in ("id", "name") if name in item} for item in categories]
    try:
        return sorted(plain, key=itemgetter("id"))
    except TypeError:  # ids of several kinds: the one who packs says so
        return plain
