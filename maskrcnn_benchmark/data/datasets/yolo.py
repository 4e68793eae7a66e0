"""Data sets in YOLO's format: one txt an image, with a line an object in fractions of width and height.

Source of the format: https://docs.ultralytics.com/datasets/segment/
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage, AnnotatedObject, box_around
from maskrcnn_benchmark.data.datasets.class_names import check_names, read_class_names
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderDataset, FolderSource, ImageFile, match_files
from maskrcnn_benchmark.data.datasets.image_size import IMAGE_SUFFIXES, read_image_size
from maskrcnn_benchmark.utils.plain_yaml import read_yaml

_NO_ANNOTATIONS = ("classes.txt", "notes.txt", "labels.txt", "predefined_classes.txt")
_BOX = 5  # words of a line that holds a box
_TOLERANCE = 1e-3  # a fraction may be beyond 0 and 1 by this, which rounding does


class YOLODataset(FolderDataset):
    """Polygons ``class x1 y1 x2 y2 ...`` and boxes ``class x y width height``; an image without a txt has no objects.

    Args:
        data_yaml: names path, train, val, test (each a folder, a list file, or several) and names.
        split: which of these.
        img_dir, txt_dir: in place of data_yaml, the folders of images and of txt files;
        classes: and the names of the classes 0, 1, ..., or a file that lists them.
        options: see :class:`FolderDataset`.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderDataset`.
    """

    def __init__(
        self,
        data_yaml: str | Path | None = None,
        split: str = "train",
        *,
        img_dir: str | Path | None = None,
        txt_dir: str | Path | None = None,
        classes: str | Path | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        if data_yaml is not None:
            source = find_yolo_yaml(data_yaml, split)
        elif img_dir is not None and txt_dir is not None and classes is not None:
            source = find_yolo(img_dir, txt_dir, classes)
        else:
            raise ValueError("a YOLODataset needs data_yaml, or img_dir, txt_dir and classes")
        super().__init__(source, **options)


def find_yolo(img_dir: str | Path, txt_dir: str | Path, classes: str | Path | Sequence[str]) -> FolderSource:
    """Pair the images and txt files of two folders; see :class:`YOLODataset`."""
    files, errors = match_files(Path(img_dir), Path(txt_dir), [".txt"], ignored=_NO_ANNOTATIONS)
    return _source(Path(img_dir), Path(txt_dir), files, read_class_names(classes), errors)


def find_yolo_yaml(data_yaml: str | Path, split: str) -> FolderSource:
    """Pair the images and txt files of a split; see :class:`YOLODataset`.

    Raises:
        FileNotFoundError: when the yaml, or what it names, does not exist.
        ValueError: when it is not such a yaml.
    """
    path = Path(data_yaml)
    data = _read_yaml(path)
    names = _names_of(data, path)
    if not data.get(split):
        splits = [key for key in ("train", "val", "test") if data.get(key)]
        raise ValueError(f"{path} names no split {split!r}; it has {', '.join(splits) or 'none'}")
    given = data[split] if isinstance(data[split], list) else [data[split]]
    roots = _roots_of(data, path)
    images = [image for item in given for image in _images_at(str(item), roots, path)]
    root = next((root for root in roots if all(image.is_relative_to(root) for image in images)), roots[0])
    files = []
    for image in images:
        name = image.relative_to(root) if image.is_relative_to(root) else image
        label = _label_path(image)
        files.append(ImageFile(name.as_posix(), image, label if label.is_file() else None))
    return _source(root, path, files, names, [])


def read_yolo(file: ImageFile, *, names: Sequence[str]) -> AnnotatedImage:
    """Read the txt of one image.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when the image is damaged, or the txt is not text.
    """
    image = AnnotatedImage(read_image_size(file.image))
    if file.annotation is None:
        return image
    try:
        lines = file.annotation.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"annotation file {file.annotation} is not text") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            image.objects.append(_read_line(line.split(), names, image.size))
        except ValueError as error:
            image.errors.append(f"annotation file {file.annotation}, line {number}: {error}")
    return image


def _read_line(words: list[str], names: Sequence[str], size: tuple[int, int]) -> AnnotatedObject:
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise ValueError(f"it must hold numbers, got {' '.join(words)[:60]!r}") from None
    label, values = numbers[0], numbers[1:]
    if not label.is_integer() or not 0 <= label < len(names):
        raise ValueError(f"class {words[0]} is not one of the {len(names)} classes, 0 to {len(names) - 1}")
    if len(words) != _BOX and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"after the class come 4 numbers (a box) or pairs for three points or more, got {len(values)}")
    if not ((values >= -_TOLERANCE) & (values <= 1 + _TOLERANCE)).all():  # also where one is not a number
        raise ValueError("coordinates must be fractions of width and height, from 0 to 1")
    scale = np.array([size[1], size[0]], dtype=np.float32)
    points = np.clip(values, 0, 1).astype(np.float32).reshape(-1, 2) * scale
    name = names[int(label)]
    if len(words) == _BOX:
        centre, extent = points
        return AnnotatedObject(name, np.concatenate([centre - extent / 2, extent]))
    return AnnotatedObject(name, box_around([points]), [points])


def _source(root: Path, place: Path, files: list[ImageFile], names: tuple[str, ...], errors: list[str]) -> FolderSource:
    return FolderSource(
        root=root,
        place=place,
        files=tuple(files),
        read=partial(read_yolo, names=names),
        settings=("yolo",),
        suffixes=(".txt",),
        names=names,
        reads_images=True,
        errors=tuple(errors),
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path, str(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"data.yaml {path} does not exist") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold keys with values, such as train, val and names")
    return data


def _names_of(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The names, a list, or a mapping of 0, 1, ... to names."""
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise ValueError(f"{path}: names must number the classes 0 to {len(names) - 1}, got {list(names)}")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list):
        raise ValueError(f"{path} has no names: a list of the classes, or a mapping of 0, 1, ... to them")
    if data.get("nc", len(names)) != len(names):
        raise ValueError(f"{path}: nc is {data['nc']}, but there are {len(names)} names")
    return check_names(names, str(path))


def _roots_of(data: dict[str, Any], path: Path) -> list[Path]:
    """Where relative paths of a yaml may start: at its ``path``, seen from the yaml and from here, and at the yaml."""
    beside = path.parent
    given = Path(os.path.expanduser(str(data.get("path") or ".")))
    roots = [given] if given.is_absolute() else [beside / given, given]
    return [root for root in dict.fromkeys((*roots, beside)) if root.is_dir()] or [beside]


def _images_at(item: str, roots: list[Path], path: Path) -> list[Path]:
    """The images of a folder, or of a list file, in their order."""
    # Some programs write paths from a folder beside the yaml: ../train/images for train/images.
    names = [item, item.removeprefix("../")]
    places = list(dict.fromkeys(root / name for root in roots for name in names))
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise FileNotFoundError(f"{path} names {item}, but there is nothing at {' or '.join(map(str, places))}")
    if place.is_dir():
        return sorted(each for each in place.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
    lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
    images = []
    for line in filter(None, lines):
        candidates = [root / line for root in (place.parent, *roots)]
        images.append(next((each for each in candidates if each.is_file()), candidates[0]))
    return images


def _label_path(image: Path) -> Path:
    """The txt of an image: in the folder ``labels`` in place of its last folder ``images``, else beside it."""
    folders = list(image.parts[:-1])
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, f"{image.stem}.txt")
