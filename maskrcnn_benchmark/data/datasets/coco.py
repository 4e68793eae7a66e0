"""A data set in COCO's format."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, open_packed
from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.data.image_targets import ImageKeypoints, ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints, mirrored_indices

# Visible keypoints that an image needs to be trained on, all its objects together; source: the published code.
_MIN_KEYPOINTS = 10


class COCODataset(DetectionDataset):
    """Images of a folder with the annotations of a COCO json. Images come in ascending order of their ids.

    Objects are all annotations but crowds and boxes that are empty inside the image (and, where the data set has masks,
    objects whose mask has no area to speak of: no polygon of three vertices). An object without keypoints has P of them
    that are not labelled.

    Args:
        ann_file: the json; it is parsed once, see :func:`open_packed`.
        root: folder of the images.
        remove_images_without_annotations: leave out the images without an object, as training wants it; where the data
            set has keypoints, also those with fewer than 10 visible ones (P, if that is less).
        transforms: what happens to a sample.
        with_masks: False leaves the polygons out.
        with_keypoints: False leaves the keypoints out.

    Raises:
        FileNotFoundError: when the json or the image folder does not exist.
        ValueError: when the json is not in COCO's format, objects have different numbers of keypoints, or no image is
            left.
    """

    def __init__(
        self,
        ann_file: str | Path,
        root: str | Path,
        remove_images_without_annotations: bool,
        transforms: Compose | None = None,
        *,
        with_masks: bool = True,
        with_keypoints: bool = True,
    ) -> None:
        super().__init__(transforms)
        self.ann_file = Path(ann_file)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"image folder {root} does not exist")
        self.packed = open_packed(self.ann_file, pack_coco_json)
        self.has_masks = with_masks and len(self.packed.ring_offsets) > 1
        self.has_keypoints = with_keypoints and len(self.packed.keypoints) > 0
        if self.has_keypoints:
            self.keypoint_names, self._mirrored = self._find_keypoints()
        self._boxes, self._usable = self._filter(self.packed)
        self._rows = np.arange(len(self.packed.image_ids))
        if remove_images_without_annotations:
            self._rows = self._rows[self._trainable_images()]
        if not len(self._rows):
            wanted = "has an object to train on" if remove_images_without_annotations else "is listed"
            if self.has_keypoints and remove_images_without_annotations:
                wanted = f"has an object, and {self._min_keypoints} visible keypoints, to train on"
            raise ValueError(f"annotation file {ann_file}: none of its {len(self.packed.image_ids)} images {wanted}")
        names = self.packed.category_names
        self.categories = tuple(names[i] for i in range(len(names)))
        self.contiguous_category_id_to_json_id = dict(enumerate(self.packed.category_ids.tolist(), start=1))
        self.json_category_id_to_contiguous_id = {v: k for k, v in self.contiguous_category_id_to_json_id.items()}
        self.ids = self.packed.image_ids[self._rows].tolist()
        self.id_to_img_map = dict(enumerate(self.ids))

    def _filter(self, packed: PackedAnnotations) -> tuple[np.ndarray, np.ndarray]:
        """All boxes as inclusive xyxy inside their images, float32 [A, 4], and which are objects, bool [A]."""
        sizes = np.repeat(packed.image_sizes, np.diff(packed.annotation_offsets), axis=0)
        limits = np.tile(sizes[:, ::-1] - 1, (1, 2)).astype(np.float32)
        boxes = packed.boxes.copy()
        boxes[:, 2:] = boxes[:, :2] + np.maximum(boxes[:, 2:] - 1, 0)
        boxes = np.clip(boxes, 0, limits)
        usable = ~packed.iscrowd & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if self.has_masks:
            usable &= np.diff(packed.polygon_offsets) > 0
        return boxes, usable

    def _find_keypoints(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the P keypoints, and which takes the place of which in a mirror image, int64 [P].

        The names are those of the categories. Without names 17 keypoints are taken for COCO's, others for numbers that
        keep their places.
        """
        counts = np.unique(np.diff(self.packed.keypoint_offsets))
        counts = counts[counts > 0].tolist()
        texts = (self.packed.keypoint_names[index] for index in range(len(self.packed.keypoint_names)))
        named = {tuple(text.split("\n")) for text in texts if text}
        if len(counts) > 1 or len(named) > 1 or (named and [len(names) for names in named] != counts):
            raise ValueError(
                f"annotation file {self.ann_file}: all objects must have the same keypoints, but they have {counts} "
                f"and the categories name {sorted(map(len, named))}; correct it, or set MODEL.KEYPOINT_ON to False"
            )
        if named:
            names = named.pop()
        elif counts == [len(PersonKeypoints.NAMES)]:
            names = PersonKeypoints.NAMES
        else:
            names = tuple(map(str, range(counts[0])))
        return names, np.array(mirrored_indices(names), dtype=np.int64)

    @property
    def _min_keypoints(self) -> int:
        return min(_MIN_KEYPOINTS, len(self.keypoint_names))

    def _trainable_images(self) -> np.ndarray:
        """Which images are fit to be trained on, bool [I]."""
        offsets = self.packed.annotation_offsets
        trainable = np.diff(np.concatenate([[0], np.cumsum(self._usable)])[offsets]) > 0
        if self.has_keypoints:
            visible_before = np.concatenate([[0], np.cumsum(self.packed.keypoints[:, 2] > 0)])
            trainable &= np.diff(visible_before[self.packed.keypoint_offsets[offsets]]) >= self._min_keypoints
        return trainable

    @cached_property
    def coco(self) -> COCO:
        """pycocotools' view of the annotation file, for evaluation; parsed on first use."""
        return COCO(str(self.ann_file))

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are not forked receive the data set by pickle; they evaluate nothing.
        return {name: value for name, value in self.__dict__.items() if name != "coco"}

    def __len__(self) -> int:
        return len(self._rows)

    def load_image(self, index: int) -> np.ndarray:
        """Decode image ``index``.

        Raises:
            FileNotFoundError: when its file does not exist.
            ValueError: when the file is damaged or its size is not the one in the json.
        """
        info = self.get_img_info(index)
        path = self.root / info["file_name"]
        image = read_image(path)
        if image.shape[:2] != (info["height"], info["width"]):
            raise ValueError(
                f"image {path} is {image.shape[1]}x{image.shape[0]} pixels, but {self.ann_file} says "
                f"{info['width']}x{info['height']} (width x height); correct the json, or store the image "
                "without an EXIF rotation if it has one"
            )
        return image

    def load_targets(self, index: int) -> ImageTargets:
        """The objects of image ``index``: clipped boxes, labels, polygons, keypoints."""
        row = self._rows[index]
        begin, end = self.packed.annotation_offsets[row : row + 2].tolist()
        chosen = begin + np.flatnonzero(self._usable[begin:end])
        height, width = self.packed.image_sizes[row].tolist()
        return ImageTargets(
            boxes=self._boxes[chosen],
            labels=self.packed.labels[chosen],
            image_size=(height, width),
            polygons=ImagePolygons(*self.packed.take_polygons(chosen)) if self.has_masks else None,
            keypoints=self._keypoints(chosen) if self.has_keypoints else None,
        )

    def _keypoints(self, annotations: np.ndarray) -> ImageKeypoints:
        points = self.packed.take_keypoints(annotations, len(self.keypoint_names))
        return ImageKeypoints(points, self._mirrored)

    def get_img_info(self, index: int) -> dict[str, Any]:
        """``id``, ``height``, ``width`` and ``file_name`` of image ``index``."""
        row = self._rows[index]
        height, width = self.packed.image_sizes[row].tolist()
        return {"id": self.ids[index], "height": height, "width": width, "file_name": self.packed.file_names[row]}

    def aspect_ratios(self) -> np.ndarray:
        """height / width of every image, float64 [len(self)]."""
        sizes = self.packed.image_sizes[self._rows].astype(np.float64)
        return sizes[:, 0] / sizes[:, 1]
