"""The training data of a job: read once in the platform's formats, written as COCO files for our own reader."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.annotations import LabelledObject, labels_of, read_ark, read_voc
from maskrcnn_benchmark.ymir.coco_annotations import FILE_NAME, CocoAnnotations
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.index import IndexEntry, read_index
from maskrcnn_benchmark.ymir.protocol import Environment
from maskrcnn_benchmark.ymir.settings import JobSettings

logger = logging.getLogger("maskrcnn_benchmark.ymir")

TRAIN, VAL = "ymir_train", "ymir_val"
FORMATS = {"ark": "ark", "det-ark": "ark", "voc": "voc", "det-voc": "voc", "coco": "coco", "seg-coco": "coco"}
_FORMAT_OF_SUFFIX = {".txt": "ark", ".xml": "voc", ".json": "coco"}
Reader = Callable[[IndexEntry], tuple[dict[str, Any], list[LabelledObject]]]
_READERS = 8  # threads: most of the time goes into opening files
_REPORTS_EVERY = 100  # images


@dataclass(frozen=True)
class TrainingData:
    """What a job trains on.

    Args:
        train_file, val_file: COCO files; the names of images in them are paths from the root of the file system.
        has_masks: whether an object has an outline that is more than its box.
    """

    train_file: str
    val_file: str
    has_masks: bool


@dataclass(frozen=True)
class _Part:
    """One data set: images as COCO's entries, and the objects of each."""

    images: list[dict[str, Any]]
    objects: list[list[LabelledObject]]

    @property
    def has_masks(self) -> bool:
        return any(item.segmentation is not None for items in self.objects for item in items)


def make_training_data(
    environment: Environment, settings: JobSettings, folder: str, progress: Callable[[float], None]
) -> TrainingData:
    """Read what both index files name, check it, and write train.json and val.json.

    Args:
        environment: of the job.
        settings: class_names and export_format are read.
        folder: for the two files; made when missing.
        progress: told how much is done, 0 to 1.

    Raises:
        JobError: a file is missing or faulty; it is named, with the line or the object.
        OSError: the folder cannot be written.
    """
    names = settings.class_names
    indices = {
        "train": read_index(environment.input.training_index_file, "training"),
        "val": read_index(environment.input.val_index_file, "val"),
    }
    kind = annotation_format(settings, environment, indices["train"])
    read = make_reader(kind, labels_of(names), list(chain(*indices.values())), environment.input.annotations_dir)
    total, num_done = sum(map(len, indices.values())), 0
    parts = {name: _Part([], []) for name in indices}
    for name, entries in indices.items():
        for image, objects in _read_all(entries, read):
            parts[name].images.append({"id": len(parts[name].images) + 1, **image})
            parts[name].objects.append(objects)
            num_done += 1
            if num_done % _REPORTS_EVERY == 0:
                progress(num_done / total)
    if not any(parts["train"].objects):
        raise JobError(
            ReturnCode.DATASET,
            f"no image of {environment.input.training_index_file} has an object of {', '.join(names)}; choose a data "
            "set with such labels",
        )
    os.makedirs(folder, exist_ok=True)
    files = {name: os.path.join(folder, f"{name}.json") for name in parts}
    for name, part in parts.items():
        _write(files[name], part, names)
        logger.info("%s: %d images with %d objects", name, len(part.images), sum(map(len, part.objects)))
    return TrainingData(files["train"], files["val"], any(part.has_masks for part in parts.values()))


def annotation_format(settings: JobSettings, environment: Environment, entries: Sequence[IndexEntry]) -> str:
    """Which of "ark", "voc" and "coco" export_format says, or else the ending of the first annotation file.

    Raises:
        JobError: there is no such format, or images are not exported as they are.
    """
    given = settings.text("export_format").lower()
    if not given:
        default = "voc" if environment.protocol.has_stages else "ark"
        return _FORMAT_OF_SUFFIX.get(os.path.splitext(entries[0].annotation)[1].lower(), default)
    annotations, _, images = given.partition(":")
    if annotations not in FORMATS or images not in ("raw", ""):
        raise JobError(
            ReturnCode.CONFIG,
            f"export_format {given!r} cannot be trained on; set ark:raw, voc:raw or seg-coco:raw",
        )
    return FORMATS[annotations]


def make_reader(kind: str, labels: Mapping[str, int], entries: Sequence[IndexEntry], annotations_dir: str) -> Reader:
    """What reads the size of an image, as COCO's entry, and its objects.

    Args:
        kind: "ark", "voc" or "coco".
        labels: label by name, see `labels_of`.
        entries: that will be read; COCO's file is parsed at once.
        annotations_dir: where COCO's file lies that an index does not name.
    """

    def coco_file(entry: IndexEntry) -> str:
        return entry.annotation if entry.annotation.endswith(".json") else os.path.join(annotations_dir, FILE_NAME)

    files: dict[str, CocoAnnotations] = {}
    if kind == "coco":
        files = {path: CocoAnnotations(path, labels) for path in sorted(set(map(coco_file, entries)))}

    def read(entry: IndexEntry) -> tuple[dict[str, Any], list[LabelledObject]]:
        height, width = image_size(entry.image)
        image = {"file_name": os.path.abspath(entry.image).lstrip("/"), "height": height, "width": width}
        if kind == "coco":
            return image, files[coco_file(entry)].of(entry.name, height=height, width=width)
        if not entry.annotation:
            raise JobError(
                ReturnCode.DATASET, f"image {entry.image} has no annotation in line {entry.line} of its index"
            )
        return image, (read_ark if kind == "ark" else read_voc)(entry.annotation, labels)

    return read


def _read_all(entries: Sequence[IndexEntry], read: Reader) -> Iterator[tuple[dict[str, Any], list[LabelledObject]]]:
    """Images and objects in the order of the index, read ahead in threads."""
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            yield from pool.map(read, entries)
        finally:
            pool.shutdown(cancel_futures=True)


def image_size(path: str) -> tuple[int, int]:
    """Height and width of an image file.

    Raises:
        JobError: it is missing or no image.
    """
    try:
        return read_image_size(Path(path))
    except FileNotFoundError as error:
        raise JobError(ReturnCode.DATASET, str(error)) from error
    except (ValueError, OSError) as error:
        raise JobError(ReturnCode.ANNOTATION, f"image {path} cannot be read: {error}") from error


def _write(path: str, part: _Part, names: Sequence[str]) -> None:
    annotations, num_empty, num_boxes = [], 0, 0
    for image, objects in zip(part.images, part.objects, strict=True):
        for item in objects:
            x, y, width, height = item.box
            if width < 1 or height < 1:
                num_empty += 1
                continue
            outline = item.segmentation
            if outline is None:
                num_boxes += 1
                outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": item.label,
                    "bbox": item.box,
                    "area": item.area or width * height,
                    "iscrowd": int(item.is_crowd),
                    "segmentation": outline,
                }
            )
    if num_empty:
        logger.warning("%s: %d objects are left out, since their boxes are empty", Path(path).stem, num_empty)
    if part.has_masks and num_boxes:
        logger.warning("%s: %d objects have no outline; their boxes stand for it", Path(path).stem, num_boxes)
    categories = [{"id": label, "name": name} for label, name in enumerate(names, start=1)]
    content = orjson.dumps({"images": part.images, "categories": categories, "annotations": annotations})
    write_atomically(path, lambda file: file.write(content))
