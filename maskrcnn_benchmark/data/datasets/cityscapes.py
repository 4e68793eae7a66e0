"""Data sets in Cityscapes' own format: instance images, or polygons."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.cityscapes_ids import (
    EVALUATED,
    INSTANCES_PER_LABEL,
    LABEL_IDS,
    VOID_IDS,
    instances_of,
    read_instance_ids,
)
from maskrcnn_benchmark.data.datasets.coco_json import parse_json
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, fingerprint_of, open_packed
from maskrcnn_benchmark.data.datasets.packed_dataset import ImageAnnotations, PackedDataset, pack_images
from maskrcnn_benchmark.data.image_header import check_pixels
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

_SPLITS = ("train", "val", "test")
_IMAGE_SUFFIX = "_leftImg8bit.png"
_SUFFIXES = {"mask": "instanceIds.png", "poly": "polygons.json"}


class CityScapesDataset(PackedDataset):
    """Images of a split with their objects; groups of objects that were not told apart are left out.

    ``img_dir/<split>/<city>/*_leftImg8bit.png`` are the images; ``ann_dir/<split>/<city>/`` holds for each of them
    ``*_instanceIds.png`` and, for the mode "poly", ``*_polygons.json``. Images come in the order of their paths.
    Category ids are Cityscapes' label ids.

    Args:
        img_dir: the folder leftImg8bit.
        ann_dir: the folder gtFine.
        split: "train", "val" or "test".
        mode: "mask" takes what is visible of an object, as exact polygons; "poly" its drawn polygon, which may reach
            behind other objects.
        transforms: what happens to a sample.
        min_area: leave out objects with a smaller box, (x2 - x1) * (y2 - y1) in square pixels.
        mini: about so many images of the split, evenly spread; None: all.
        remove_images_without_annotations: leave out the images without an object, as training wants it.
        with_masks: False leaves the polygons out.
        evaluated_only: without the classes caravan and trailer, which the benchmark does not evaluate: 8 instead of 10.

    Raises:
        FileNotFoundError: when a folder, or the annotations of an image, do not exist.
        ValueError: when an argument or a file is faulty, or no image is left.
    """

    evaluation = "cityscapes"
    evaluated_categories = EVALUATED
    void_ids = VOID_IDS

    def __init__(
        self,
        img_dir: str | Path,
        ann_dir: str | Path,
        split: str,
        mode: str = "mask",
        transforms: Compose | None = None,
        min_area: float = 0,
        mini: int | None = None,
        *,
        remove_images_without_annotations: bool = False,
        with_masks: bool = True,
        evaluated_only: bool = False,
    ) -> None:
        if split not in _SPLITS or mode not in _SUFFIXES or (mini is not None and mini < 1):
            raise ValueError(
                f"split must be one of {', '.join(_SPLITS)}, mode one of {', '.join(_SUFFIXES)} and mini positive, "
                f"got {split!r}, {mode!r} and {mini}"
            )
        root, annotations = Path(img_dir) / split, Path(ann_dir) / split
        for folder in (root, annotations):
            if not folder.is_dir():
                raise FileNotFoundError(f"Cityscapes folder {folder} does not exist")
        names = sorted(path.relative_to(root).as_posix() for path in root.glob(f"*/*{_IMAGE_SUFFIX}"))
        self.ann_paths = _annotation_files(names, annotations, _SUFFIXES[mode])
        classes = EVALUATED if evaluated_only else tuple(LABEL_IDS)
        packed = open_packed(
            annotations,
            partial(_pack, names=names, files=self.ann_paths, classes=classes),
            fingerprint=fingerprint_of(self.ann_paths, mode, classes),
        )
        super().__init__(packed, root, transforms)
        self.mode = mode
        self.has_masks = with_masks
        if mini is not None:
            self._select(self._rows[:: len(names) // mini + 1])
        self._usable = (packed.boxes[:, 2:] - 1).prod(axis=1) >= min_area
        if remove_images_without_annotations:
            self._select(self._rows[self._has_objects()[self._rows]])
        if not len(self):
            wanted = "has an object to train on" if names else f"was found: there is no */*{_IMAGE_SUFFIX}"
            raise ValueError(f"Cityscapes folder {root}: none of its {len(names)} images {wanted}")

    def _image_ids(self, rows: np.ndarray) -> list[str]:
        return [Path(self.packed.file_names[row]).name.removesuffix(_IMAGE_SUFFIX) for row in rows]

    def _source(self, row: int) -> Path:
        return self.ann_paths[row]

    def load_instance_ids(self, index: int) -> np.ndarray:
        """The instance image of image ``index``, integers [H, W]; see :func:`read_instance_ids`."""
        path = self.ann_paths[self._rows[index]]
        return read_instance_ids(path.with_name(path.name.replace(_SUFFIXES["poly"], _SUFFIXES["mask"])))

    def get_img_info(self, index: int) -> dict[str, Any]:
        """``id``, ``height``, ``width``, ``file_name``, ``img_path`` and ``ann_path`` of image ``index``."""
        info = super().get_img_info(index)
        paths = {"img_path": str(self.root / info["file_name"]), "ann_path": str(self.ann_paths[self._rows[index]])}
        return {**info, "idx": index, **paths}

    def map_class_id_to_class_name(self, class_id: int) -> str:
        """The name of a label; 0 is the background."""
        return ("__background__", *self.categories)[class_id]


def _annotation_files(names: Sequence[str], folder: Path, suffix: str) -> list[Path]:
    """The annotation file of each image, <city>/<place and time>_gtFine_<suffix>."""
    found = {f"{path.parent.name}/{path.name.rsplit('_', 2)[0]}": path for path in folder.glob(f"*/*_{suffix}")}
    places = [name.removesuffix(_IMAGE_SUFFIX) for name in names]
    missing = next((place for place in places if place not in found), None)
    if missing is not None:
        raise FileNotFoundError(
            f"Cityscapes image {missing}{_IMAGE_SUFFIX} has no annotations {folder / missing}_gtFine_{suffix}; unpack "
            "gtFine beside leftImg8bit"
        )
    return [found[place] for place in places]


def _pack(folder: Path, *, names: Sequence[str], files: Sequence[Path], classes: Sequence[str]) -> PackedAnnotations:
    logging.getLogger(__name__).info("Packing %d annotation files of %s; this is done once", len(files), folder)
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    images = [read_annotations(path, name, label_of) for name, path in zip(names, files, strict=True)]
    return pack_images(images, [(LABEL_IDS[name], name) for name in classes])


def read_annotations(path: Path, name: str, label_of: dict[str, int]) -> ImageAnnotations:
    """Read the objects of one image from its instance image or its polygons.

    Args:
        path: ``*_instanceIds.png`` or ``*_polygons.json``.
        name: of the image, below its folder.
        label_of: labels of the classes that are objects.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is faulty.
    """
    return (_from_instance_ids if path.suffix == ".png" else _from_polygons)(path, name, label_of)


def _annotations(
    name: str, size: tuple[int, int], objects: list[tuple[list[np.ndarray], Any, int]]
) -> ImageAnnotations:
    """``objects`` are (rings, inclusive xyxy box, label)."""
    rings, boxes, labels = map(list, zip(*objects, strict=True)) if objects else ([], [], [])
    return ImageAnnotations(
        file_name=name,
        size=size,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        rings=rings,
    )


def _from_instance_ids(path: Path, name: str, label_of: dict[str, int]) -> ImageAnnotations:
    ids = read_instance_ids(path)
    label_of_id = {LABEL_IDS[name]: label for name, label in label_of.items()}
    objects = []
    for value, box, mask in instances_of(ids):
        label = label_of_id.get(value // INSTANCES_PER_LABEL)
        if label is not None:
            corner = np.array(box[:2], dtype=np.float32)
            objects.append(([ring + corner for ring in mask_to_polygons(mask)], box, label))
    return _annotations(name, ids.shape, objects)


def _from_polygons(path: Path, name: str, label_of: dict[str, int]) -> ImageAnnotations:
    data = parse_json(path)
    try:
        objects = []
        for number, item in enumerate(data["objects"]):
            label = label_of.get(item["label"])
            if label is None or item.get("deleted"):
                continue
            ring = np.array(item["polygon"], dtype=np.float32)
            if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
                raise ValueError(
                    f"object {number} ({item['label']}) must have a polygon of three points [x, y] or more"
                )
            # as published: corners truncated to whole pixels
            objects.append(([ring], np.trunc([*ring.min(axis=0), *ring.max(axis=0)]), label))
        size = int(data["imgHeight"]), int(data["imgWidth"])
        check_pixels(*size, "the picture")
        return _annotations(name, size, objects)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"annotation file {path}: {detail}") from error
