"""Data sets with one png of instance ids an image: 0 is the background, every other number one object."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage, AnnotatedObject
from maskrcnn_benchmark.data.datasets.cityscapes_ids import instances_of, read_instance_ids
from maskrcnn_benchmark.data.datasets.class_names import read_class_names
from maskrcnn_benchmark.data.datasets.coco_json import parse_json
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderDataset, FolderSource, ImageFile, match_files
from maskrcnn_benchmark.data.image_header import check_pixels, size_in_header
from maskrcnn_benchmark.data.image_io import is_truncated
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

# What follows the stem of an image in the name of its masks, where nothing is said.
_SUFFIXES = ("", "_mask", "_masks", "_instance", "_instances")
_ONE_CLASS = "object"
_HEADER, _COLOUR_TYPE = 26, 25  # bytes of a png's header, and where its colour type stands, after the bit depth
_PALETTE = 3  # the colour type of pixels that are numbers of a table of colours

# Class of an id; by the image's name or stem where ids mean something else in each image. None: no object.
IdClasses = Mapping[str, str | None]


class InstancePNGDataset(FolderDataset):
    """Masks of png files; images without one are left out.

    Args:
        img_dir: folder of the images.
        mask_dir: folder of the png files, with the name of their image and ``mask_suffix``.
        classes: the name of the one class, by default "object"; with ``mapping_file`` see :class:`FolderDataset`.
        mask_suffix: such as "_mask"; None finds the usual ones.
        mapping_file: a json that says which class an id has, {"1": "car", "2": "person"}, or by image,
            {"street_01": {"1": "car"}}; null in place of a name: no object.
        options: see :class:`FolderDataset`.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderDataset`.
    """

    names_from_objects = True

    def __init__(
        self,
        img_dir: str | Path,
        mask_dir: str | Path,
        *,
        classes: str | Path | Sequence[str] | None = None,
        mask_suffix: str | None = None,
        mapping_file: str | Path | None = None,
        **options: Any,
    ) -> None:
        classes = read_class_names(classes) if classes is not None else None
        source = find_instance_png(
            img_dir, mask_dir, classes=classes, mask_suffix=mask_suffix, mapping_file=mapping_file
        )
        super().__init__(source, classes=classes, **options)


def find_instance_png(
    img_dir: str | Path,
    mask_dir: str | Path,
    *,
    classes: str | Path | Sequence[str] | None = None,
    mask_suffix: str | None = None,
    mapping_file: str | Path | None = None,
) -> FolderSource:
    """Pair images and masks; see :class:`InstancePNGDataset`."""
    root, place = Path(img_dir), Path(mask_dir)
    if root.resolve() == place.resolve():
        raise ValueError(f"{root} is img_dir and mask_dir; put the masks into a folder of their own")
    names = read_class_names(classes) if classes is not None else (_ONE_CLASS,)
    if mapping_file is None and len(names) > 1:
        raise ValueError(
            f"masks of {place}: nothing says which id has which of the {len(names)} classes; give mapping_file, or one "
            "class only"
        )
    mapping = parse_json(Path(mapping_file)) if mapping_file is not None else None
    suffixes = tuple(f"{ending}.png" for ending in (_SUFFIXES if mask_suffix is None else (mask_suffix,)))
    files, errors = match_files(root, place, suffixes)
    return FolderSource(
        root=root,
        place=place,
        files=tuple(file for file in files if file.annotation is not None),
        read=partial(read_instance_png, name=names[0], mapping=mapping),
        settings=("instance_png", names[0] if mapping is None else sorted(map(str, mapping.items()))),
        suffixes=suffixes,
        errors=tuple(errors),
        unlabelled=tuple(file.name for file in files if file.annotation is None),
    )


def read_instance_png(
    file: ImageFile, *, name: str, mapping: Mapping[str, str | IdClasses | None] | None
) -> AnnotatedImage:
    """Read the masks of one image.

    Args:
        file: the image.
        name: class of all objects, where there is no mapping.
        mapping: see :class:`InstancePNGDataset`.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_ids`.
    """
    ids = read_ids(file.annotation)
    image = AnnotatedImage(ids.shape)
    classes = _classes_of(file, mapping) if mapping is not None else None
    for value, (x1, y1, x2, y2), mask in instances_of(ids, least=1):
        if classes is not None:
            if str(value) not in classes:
                image.errors.append(f"mask {file.annotation}: id {value} has no class in the mapping file")
                continue
            if classes[str(value)] is None:
                continue
            name = str(classes[str(value)])
        corner = np.array([x1, y1], dtype=np.float32)
        box = np.array([x1, y1, x2 - x1 + 1, y2 - y1 + 1], dtype=np.float32)
        image.objects.append(AnnotatedObject(name, box, [ring + corner for ring in mask_to_polygons(mask)]))
    return image


def read_ids(path: Path) -> np.ndarray:
    """Read a png of ids, integers [H, W]; of a png with a table of colours the numbers in the table.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or not an image of ids.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    if header[_COLOUR_TYPE:] != bytes([_PALETTE]):
        return read_instance_ids(path)
    data = path.read_bytes()
    if (size := size_in_header(data)) is not None:
        check_pixels(*size, f"mask {path}")
    grey = np.frombuffer(_as_grey(data), np.uint8)
    try:
        ids = None if is_truncated(data) else cv2.imdecode(grey, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        ids = None
    if ids is None or ids.ndim != 2:
        raise ValueError(f"mask {path} is damaged or truncated ({len(data)} bytes); export it again")
    # A decoder stretches grey of 1, 2 or 4 bits to 0 .. 255.
    return ids // (255 // (2 ** header[_COLOUR_TYPE - 1] - 1))


def _as_grey(data: bytes) -> bytes:
    """The same png with the numbers of its table of colours for grey values: a decoder would look up the colours."""
    pieces, position = [data[:8]], 8
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IHDR":
            content = content[:9] + b"\x00" + content[10:]
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            check = zlib.crc32(kind + content).to_bytes(4, "big")
            pieces.append(len(content).to_bytes(4, "big") + kind + content + check)
    return b"".join(pieces)


def _classes_of(file: ImageFile, mapping: Mapping[str, Any]) -> IdClasses:
    """Which class each id of an image has."""
    if not any(isinstance(value, dict) for value in mapping.values()):
        return mapping
    name = Path(file.name)
    keys = (file.name, name.with_suffix("").as_posix(), name.name, name.stem)
    own = next((mapping[key] for key in keys if key in mapping), None)
    if not isinstance(own, dict):
        raise ValueError(f"image {file.image}: the mapping file says nothing of {name.stem}")
    return own
