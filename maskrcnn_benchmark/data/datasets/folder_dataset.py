"""Data sets of two folders: images, and beside each image one annotation file in any format."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage, AnnotatedObject, corners_of
from maskrcnn_benchmark.data.datasets.image_size import IMAGE_SUFFIXES
from maskrcnn_benchmark.data.datasets.packed import (
    PackedAnnotations,
    PackedStrings,
    fingerprint_of,
    offsets_of,
    open_packed,
)
from maskrcnn_benchmark.data.datasets.packed_coco import coco_of
from maskrcnn_benchmark.data.datasets.packed_dataset import PackedDataset
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.transforms import Compose

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """An image and its annotation file.

    Attributes:
        name: path of the image below the folder of images.
        image: the file.
        annotation: its annotations; None: it has none, and that means that it shows no object.
    """

    name: str
    image: Path
    annotation: Path | None


@dataclass(frozen=True)
class FolderSource:
    """Where images and annotations lie, and how they are read.

    Attributes:
        root: folder of the images.
        place: folder of the annotations; the packed form is kept beside it.
        files: the images, in the order of the data set.
        read: reads the annotations of one image.
        settings: what the packed form depends on beside the annotation files.
        suffixes: what replaces the suffix of an image in the name of its annotations below ``place``.
        names: the classes, where the format lists them; None: they are the names of the objects.
        reads_images: whether sizes come from the images, so that the packed form depends on these too.
        errors: what is wrong with the folders as a whole.
        unlabelled: images without an annotation file in a format where this says nothing; they are left out.
    """

    root: Path
    place: Path
    files: tuple[ImageFile, ...]
    read: Callable[[ImageFile], AnnotatedImage]
    settings: tuple[Any, ...]
    suffixes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    reads_images: bool = False
    errors: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = field(default=(), repr=False)


class FolderDataset(PackedDataset):
    """Images of a folder with the objects of their annotation files; figures are COCO's.

    Images come in the order of their paths, their ids are 0, 1, ... in this order. Objects are all but the ignored ones
    and boxes that are empty inside the image. Where some objects have polygons, those without are masks of their box.

    Args:
        source: where things lie.
        transforms: what happens to a sample.
        remove_images_without_annotations: leave out the images without an object, as training wants it.
        with_masks: False leaves the polygons out.
        classes: names of the labels 1 .. K; None: those that the format lists, or else the names of the objects in
            alphabetical order.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when a file is faulty, an object has a class that is not listed, there are no polygons to take masks
            from, or no image is left.

    Attributes:
        names_from_objects: whether the format lists no classes, so that they are what the objects are called.
    """

    names_from_objects = False

    def __init__(
        self,
        source: FolderSource,
        transforms: Compose | None = None,
        *,
        remove_images_without_annotations: bool = False,
        with_masks: bool = True,
        classes: Sequence[str] | None = None,
    ) -> None:
        if source.errors:
            raise ValueError(source.errors[0])
        if source.unlabelled:
            _warn_of_unlabelled(source.root, source.place, len(source.unlabelled), source.unlabelled[0])
        self._place, self._suffixes = source.place, source.suffixes
        files = [file.annotation for file in source.files if file.annotation is not None]
        if source.reads_images:
            files += [file.image for file in source.files]
        names = tuple((file.name, file.annotation is not None) for file in source.files)
        packed = open_packed(
            source.place,
            functools.partial(_pack_quietly, source=source),
            fingerprint=fingerprint_of(files, names, source.names, *source.settings),
        )
        super().__init__(packed, source.root, transforms)
        self.has_masks = with_masks and len(packed.ring_offsets) > 1
        if with_masks and not self.has_masks and len(packed.labels):
            raise ValueError(f"{source.place}: the objects have boxes only; set MODEL.MASK_ON to False")
        self._label_of = self._relabel(classes)
        self._choose(self._is_object)
        if remove_images_without_annotations:
            self._select(np.flatnonzero(self._has_objects()))
        if not len(self):
            wanted = "has an object to train on" if source.files else "was found"
            raise ValueError(f"image folder {source.root}: none of its {len(source.files)} images {wanted}")

    def _relabel(self, classes: Sequence[str] | None) -> np.ndarray:
        """Number the classes as asked; returns the new label of each packed one, int64 [K + 1]."""
        own = self.categories
        self.categories = tuple(classes) if classes is not None else own
        self.contiguous_category_id_to_json_id = {label: label for label in range(1, len(self.categories) + 1)}
        new = {name: label for label, name in enumerate(self.categories, start=1)}
        label_of = np.array([0, *(new.get(name, 0) for name in own)], dtype=np.int64)
        unknown = np.flatnonzero(label_of[self.packed.labels] == 0)
        if len(unknown):
            row = int(np.searchsorted(self.packed.annotation_offsets, unknown[0], side="right")) - 1
            raise ValueError(
                f"annotation file {self._source(row)}: class {own[self.packed.labels[unknown[0]] - 1]!r} is not among "
                f"the {len(new)} classes {', '.join(new)}; correct it, or list it in DATASETS.CLASSES or the entry's "
                "classes"
            )
        return label_of

    def _is_object(self, part: slice, boxes: np.ndarray) -> np.ndarray:
        usable = ~self.packed.iscrowd[part] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if self.has_masks:
            usable &= np.diff(self.packed.polygon_offsets[part.start : part.stop + 1]) > 0
        return usable

    def _source(self, row: int) -> Path:
        # Looked for again: as many paths as there are images would be copied into every process.
        name = Path(self.packed.file_names[row]).with_suffix("")
        candidates = (self._place / f"{name}{suffix}" for suffix in self._suffixes)
        return next((path for path in candidates if path.is_file()), self._place)

    def load_targets(self, index: int) -> ImageTargets:
        """The objects of image ``index``: clipped boxes, labels, and polygons where there are such."""
        targets = super().load_targets(index)
        targets.labels[:] = self._label_of[targets.labels]
        return targets

    @functools.cached_property
    def coco(self) -> COCO:
        """The annotations as pycocotools sees them, for evaluation; made on first use."""
        return coco_of(self.packed, self._label_of[self.packed.labels], dict(enumerate(self.categories, start=1)))

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are not forked receive the data set by pickle; they evaluate nothing.
        return {name: value for name, value in self.__dict__.items() if name != "coco"}


@functools.lru_cache(maxsize=64)  # a run opens a data set more than once
def _warn_of_unlabelled(root: Path, place: Path, count: int, first: str) -> None:
    logger.warning(
        "%d images of %s have no annotation file in %s and are left out, such as %s", count, root, place, first
    )


def match_files(
    img_dir: Path, ann_dir: Path, suffixes: Iterable[str], *, ignored: Iterable[str] = ()
) -> tuple[list[ImageFile], list[str]]:
    """Pair the images of a folder, and of the folders in it, with annotation files of the same path and stem.

    Args:
        img_dir: folder of the images.
        ann_dir: folder of the annotation files.
        suffixes: what replaces the suffix of an image in the name of its annotations; the first that exists counts.
        ignored: names in ``ann_dir`` that are no annotations.

    Returns:
        The pairs in the order of their paths, and what is wrong: annotation files without an image, and images that
        would share one.

    Raises:
        FileNotFoundError: when a folder does not exist.
    """
    for kind, folder in (("image", img_dir), ("annotation", ann_dir)):
        if not folder.is_dir():
            raise FileNotFoundError(f"{kind} folder {folder} does not exist")
    suffixes = tuple(suffixes)
    kinds = {f".{suffix.rpartition('.')[2]}" for suffix in suffixes}
    found = {path for path in ann_dir.rglob("*") if path.suffix in kinds and path.name not in ignored}
    inside = ann_dir != img_dir and ann_dir.is_relative_to(img_dir)
    files, errors, owner = [], [], {}
    for image in sorted(path for path in img_dir.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        if inside and image.is_relative_to(ann_dir):
            continue
        name = image.relative_to(img_dir)
        candidates = (ann_dir / name.parent / f"{name.stem}{suffix}" for suffix in suffixes)
        annotation = next((path for path in candidates if path in found), None)
        if annotation in owner:
            errors.append(f"images {owner[annotation]} and {image} share the annotation file {annotation}; rename one")
        elif annotation is not None:
            owner[annotation] = image
        files.append(ImageFile(name.as_posix(), image, annotation))
    errors += [f"annotation file {path} has no image in {img_dir}" for path in sorted(found - owner.keys())]
    return files, errors


def pack_files(source: FolderSource) -> PackedAnnotations:
    """Read all annotation files; the labels are numbers of ``source.names``, or of the sorted names of the objects.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when a file is faulty; the message names it.
    """
    images = [source.read(file) for file in source.files]
    error = next((error for image in images for error in image.errors), None)
    if error is not None:
        raise ValueError(error)
    objects = [each for image in images for each in image.objects]
    names = source.names or tuple(sorted({each.name for each in objects}))
    label_of = {name: label for label, name in enumerate(names, start=1)}
    has_masks = any(each.rings for each in objects)
    rings = [_rings_of(each) if has_masks else [] for each in objects]
    flat = [ring for own in rings for ring in own]
    sizes = [image.size for image in images for _ in image.objects]
    return PackedAnnotations(
        image_ids=np.arange(len(images), dtype=np.int64),
        image_sizes=np.array([image.size for image in images], dtype=np.int32).reshape(-1, 2),
        file_names=PackedStrings.pack([file.name for file in source.files]),
        category_ids=np.arange(1, len(names) + 1, dtype=np.int64),
        category_names=PackedStrings.pack(list(names)),
        keypoint_names=PackedStrings.pack([""] * len(names)),
        annotation_offsets=offsets_of([len(image.objects) for image in images]),
        boxes=np.array([each.box for each in objects], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label_of[each.name] for each in objects], dtype=np.int64),
        iscrowd=np.array([each.is_ignored for each in objects], dtype=bool),
        areas=np.array(list(map(_area_of, objects, rings, sizes)), dtype=np.float32),
        polygon_offsets=offsets_of([len(own) for own in rings]),
        ring_offsets=offsets_of([len(ring) for ring in flat]),
        coords=np.concatenate([np.zeros((0, 2), np.float32), *flat]),
        keypoint_offsets=np.zeros(len(objects) + 1, dtype=np.int64),
        keypoints=np.zeros((0, 3), dtype=np.float32),
    )


def _pack_quietly(place: Path, *, source: FolderSource) -> PackedAnnotations:
    logger.info("Packing the annotations of %d images in %s; this is done once", len(source.files), place)
    return pack_files(source)


def _rings_of(item: AnnotatedObject) -> list[np.ndarray]:
    return [corners_of(item.box)] if item.rings is None else item.rings


def _area_of(item: AnnotatedObject, rings: list[np.ndarray], size: tuple[int, int]) -> float:
    """Pixels of the mask, as COCO counts them; of the box where there is no mask."""
    if not rings:
        return float(item.box[2] * item.box[3])
    rles = mask_utils.frPyObjects([ring.ravel().astype(np.float64) for ring in rings], *size)
    return float(mask_utils.area(mask_utils.merge(rles)))
