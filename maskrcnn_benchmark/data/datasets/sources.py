"""Where the files of a data set lie and how they are read, for its check, by the name of its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage, AnnotatedObject
from maskrcnn_benchmark.data.datasets.cityscapes import CityScapesDataset, read_annotations
from maskrcnn_benchmark.data.datasets.cityscapes_ids import LABEL_IDS
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderSource, ImageFile
from maskrcnn_benchmark.data.datasets.instance_png import find_instance_png
from maskrcnn_benchmark.data.datasets.labelme import find_labelme
from maskrcnn_benchmark.data.datasets.voc import PascalVOCDataset
from maskrcnn_benchmark.data.datasets.voc_folder import find_voc_xml, read_voc_xml
from maskrcnn_benchmark.data.datasets.voc_xml import read_split
from maskrcnn_benchmark.data.datasets.yolo import find_yolo, find_yolo_yaml


def find_source(factory: str, arguments: dict[str, Any]) -> FolderSource:
    """The files of a data set of two folders.

    Args:
        factory: name of its class in ``data.datasets``.
        arguments: those of the class.

    Raises:
        FileNotFoundError: when a folder does not exist.
        ValueError: when an argument, or what it names, is faulty, or the class is another one.
    """
    if factory not in _FINDERS:
        raise ValueError(f"data sets of the class {factory} cannot be checked; there are {', '.join(_FINDERS)}")
    find, own_classes = _FINDERS[factory]
    known = {key: value for key, value in arguments.items() if own_classes or key != "classes"}
    return find(**known)


def _find_yolo(data_yaml: str | None = None, split: str = "train", **folders: Any) -> FolderSource:
    return find_yolo_yaml(data_yaml, split) if data_yaml is not None else find_yolo(**folders)


def _find_pascal_voc(
    data_dir: str, split: str, use_difficult: bool = False, classes: Sequence[str] | None = None
) -> FolderSource:
    folder = Path(data_dir)
    ids = read_split(folder / "ImageSets" / "Main" / f"{split}.txt")
    names = tuple(name.lower() for name in classes) if classes is not None else PascalVOCDataset.CLASSES[1:]
    images = [folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids]
    xmls = [folder / "Annotations" / f"{image_id}.xml" for image_id in ids]
    return FolderSource(
        root=folder / "JPEGImages",
        place=folder / "Annotations",
        files=tuple(ImageFile(image.name, image, xml) for image, xml in zip(images, xmls, strict=True)),
        read=partial(_read_pascal_voc, use_difficult=use_difficult),
        settings=(),
        names=names,
    )


def _read_pascal_voc(file: ImageFile, *, use_difficult: bool) -> AnnotatedImage:
    image = read_voc_xml(file, use_difficult=use_difficult)
    for item in image.objects:
        item.name = item.name.lower()
    return image


def _find_cityscapes(img_dir: str, ann_dir: str, split: str, mode: str = "mask", **_: Any) -> FolderSource:
    images = sorted(Path(img_dir, split).glob("*/*_leftImg8bit.png"))
    ending = {"mask": "instanceIds.png", "poly": "polygons.json"}[mode]
    files = []
    for image in images:
        place = image.name.removesuffix("_leftImg8bit.png")
        annotation = Path(ann_dir, split, image.parent.name, f"{place}_gtFine_{ending}")
        files.append(ImageFile(f"{image.parent.name}/{image.name}", image, annotation))
    return FolderSource(
        root=Path(img_dir, split),
        place=Path(ann_dir, split),
        files=tuple(files),
        read=_read_cityscapes,
        settings=(),
        names=tuple(LABEL_IDS),
    )


def _read_cityscapes(file: ImageFile) -> AnnotatedImage:
    label_of = {name: label for label, name in enumerate(LABEL_IDS, start=1)}
    found = read_annotations(file.annotation, file.name, label_of)
    image = AnnotatedImage(found.size)
    for box, label, rings in zip(found.boxes, found.labels.tolist(), found.rings or (), strict=True):
        extent = np.concatenate([box[:2], box[2:] - box[:2] + 1])
        image.objects.append(AnnotatedObject(list(LABEL_IDS)[label - 1], extent, rings))
    return image


# How the files of a class are found, and whether the names of the classes are needed for it.
_FINDERS: dict[str, tuple[Callable[..., FolderSource], bool]] = {
    "VOCXmlDataset": (find_voc_xml, False),
    "LabelmeDataset": (find_labelme, False),
    "YOLODataset": (_find_yolo, True),
    "InstancePNGDataset": (find_instance_png, True),
    PascalVOCDataset.__name__: (_find_pascal_voc, True),
    CityScapesDataset.__name__: (_find_cityscapes, False),
}
