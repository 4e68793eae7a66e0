"""A data set in COCO's format."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, open_packed
from maskrcnn_benchmark.data.datasets.packed_dataset import PackedDataset
from maskrcnn_benchmark.data.image_targets import ImageKeypoints
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints, mirrored_indices

# Visible keypoints that an image needs to be trained on, all its objects together; source: the published code.
_MIN_KEYPOINTS = 10


class COCODataset(PackedDataset):
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
        self.ann_file = Path(ann_file)
        if not Path(root).is_dir():
            raise FileNotFoundError(f"image folder {root} does not exist")
        packed = self._open(Path(root))
        super().__init__(packed, Path(root), transforms)
        self.has_masks = with_masks and len(packed.ring_offsets) > 1
        self.has_keypoints = with_keypoints and len(packed.keypoints) > 0
        if self.has_keypoints:
            self.keypoint_names, self._mirrored = self._find_keypoints()
        self._choose(self._is_object)
        if remove_images_without_annotations:
            self._select(np.flatnonzero(self._trainable_images()))
        if not len(self):
            wanted = "has an object to train on" if remove_images_without_annotations else "is listed"
            if self.has_keypoints and remove_images_without_annotations:
                wanted = f"has an object, and {self._min_keypoints} visible keypoints, to train on"
            raise ValueError(f"annotation file {ann_file}: none of its {len(packed.image_ids)} images {wanted}")
        self.json_category_id_to_contiguous_id = {v: k for k, v in self.contiguous_category_id_to_json_id.items()}

    def _open(self, root: Path) -> PackedAnnotations:
        """The annotations; ``root`` is the folder of the images."""
        return open_packed(self.ann_file, pack_coco_json)

    def _is_object(self, part: slice, boxes: np.ndarray) -> np.ndarray:
        usable = ~self.packed.iscrowd[part] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if self.has_masks:
            usable &= np.diff(self.packed.polygon_offsets[part.start : part.stop + 1]) > 0
        return usable

    def _source(self, row: int) -> Path:
        return self.ann_file

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
        trainable = self._has_objects()
        if self.has_keypoints:
            offsets = self.packed.annotation_offsets
            visible_before = np.concatenate([[0], np.cumsum(self.packed.keypoints[:, 2] > 0)])
            trainable &= np.diff(visible_before[self.packed.keypoint_offsets[offsets]]) >= self._min_keypoints
        return trainable

    @cached_property
    def coco(self) -> COCO:
        """The annotation file as pycocotools sees it, for evaluation; parsed on first use."""
        return COCO(str(self.ann_file))

    def __getstate__(self) -> dict[str, Any]:
        # Workers that are not forked receive the data set by pickle; they evaluate nothing.
        return {name: value for name, value in self.__dict__.items() if name != "coco"}

    def _keypoints(self, annotations: np.ndarray) -> ImageKeypoints:
        points = self.packed.take_keypoints(annotations, len(self.keypoint_names))
        return ImageKeypoints(points, self._mirrored)
