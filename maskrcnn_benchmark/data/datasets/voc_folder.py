"""Data sets of a folder of images and one of xml files as Pascal VOC has them, with classes of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage, AnnotatedObject
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderDataset, FolderSource, ImageFile, match_files
from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.data.datasets.voc_xml import read_xml


class VOCXmlDataset(FolderDataset):
    """Boxes of xml files; images without one are left out. COCO's figures, where difficult objects count neither way.

    Args:
        img_dir: folder of the images.
        xml_dir: folder of the xml files, each with the name of its image.
        use_difficult: take difficult objects as any others.
        classes, options: see :class:`FolderDataset`.

    Raises:
        FileNotFoundError, ValueError: see :class:`FolderDataset`.
    """

    names_from_objects = True

    def __init__(
        self,
        img_dir: str | Path,
        xml_dir: str | Path,
        *,
        use_difficult: bool = False,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(find_voc_xml(img_dir, xml_dir, use_difficult=use_difficult), classes=classes, **options)


def find_voc_xml(img_dir: str | Path, xml_dir: str | Path, *, use_difficult: bool = False) -> FolderSource:
    """Pair images and xml files; see :class:`VOCXmlDataset`."""
    files, errors = match_files(Path(img_dir), Path(xml_dir), [".xml"])
    return FolderSource(
        root=Path(img_dir),
        place=Path(xml_dir),
        files=tuple(file for file in files if file.annotation is not None),
        read=partial(read_voc_xml, use_difficult=use_difficult),
        settings=("voc", use_difficult),
        suffixes=(".xml",),
        errors=tuple(errors),
        unlabelled=tuple(file.name for file in files if file.annotation is None),
    )


def read_voc_xml(file: ImageFile, *, use_difficult: bool = False) -> AnnotatedImage:
    """Read an xml; without a size in it, that of the image counts.

    Raises:
        FileNotFoundError, ValueError: see :func:`read_xml`.
    """
    size, objects, faults = read_xml(file.annotation)
    if size is None:
        size, faults = read_image_size(file.image), faults[1:]
    image = AnnotatedImage(size, errors=[f"annotation file {file.annotation}: {fault}" for fault in faults])
    for number, item in enumerate(objects, start=1):
        if not item.name:
            image.errors.append(f"annotation file {file.annotation}: object {number} has no name")
            continue
        x1, y1, x2, y2 = item.corners
        box = np.array([x1, y1, x2 - x1 + 1, y2 - y1 + 1], dtype=np.float32)
        image.objects.append(AnnotatedObject(item.name, box, is_ignored=item.is_difficult and not use_difficult))
    return image
