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
from maskrcnn_benchmark.data.image_targets import ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.transforms import Compose


class COCODataset(DetectionDataset):
    """Images of a folder with the annotations of a COCO json. Images come in ascending order of their ids.

    Objects are all annotations but crowds and boxes that are empty inside the image (and, where the data set has masks,
    objects whose mask has no area to speak of: no polygon of three vertices).

    Args:
        ann_file: the json; it is parsed once, see :func:`open_packed`.
        root: folder of the images.
        remove_images_without_annotations: leave out the images without an object, as training wants it.
        transforms: what happens to a sample.
        with_masks: False leaves the polygons out.

    Raises:
        FileNotFoundError: when the json or the image folder does not exist.
        ValueError: when the json is not in COCO's format, or no image is left.
    """

    def __init__(
        self,
        ann_file: str | Path,
        root: str | Path,
        remove_images_without_annotations: bool,
        transforms: Compose | None = None,
        *,
        with_masks: bool = True,
    ) -> None:
        super().__init__(transforms)
        self.ann_file = Path(ann_file)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"image folder {root} does not exist")
        self.packed = open_packed(self.ann_file, pack_coco_json)
        self.has_masks = with_masks and len(self.packed.ring_offsets) > 1
        self._boxes, self._usable = self._filter(self.packed)
        self._rows = np.arange(len(self.packed.image_ids))
        if remove_images_without_annotations:
            usable_before = np.concatenate([[0], np.cumsum(self._usable)])[self.packed.annotation_offsets]
            self._rows = self._rows[np.diff(usable_before) > 0]
        if not len(self._rows):
            raise ValueError(
                f"annotation file {ann_file}: none of its {len(self.packed.image_ids)} images "
                f"{'has an object to train on' if remove_images_without_annotations else 'is listed'}"
            )
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
        """The objects of image ``index``: clipped boxes, labels, polygons."""
        row = self._rows[index]
        begin, end = self.packed.annotation_offsets[row : row + 2].tolist()
        chosen = begin + np.flatnonzero(self._usable[begin:end])
        height, width = self.packed.image_sizes[row].tolist()
        return ImageTargets(
            boxes=self._boxes[chosen],
            labels=self.packed.labels[chosen],
            image_size=(height, width),
            polygons=ImagePolygons(*self.packed.take_polygons(chosen)) if self.has_masks else None,
        )

    def get_img_info(self, index: int) -> dict[str, Any]:
        """``id``, ``height``, ``width`` and ``file_name`` of image ``index``."""
        row = self._rows[index]
        height, width = self.packed.image_sizes[row].tolist()
        return {"id": self.ids[index], "height": height, "width": width, "file_name": self.packed.file_names[row]}

    def aspect_ratios(self) -> np.ndarray:
        """height / width of every image, float64 [len(self)]."""
        sizes = self.packed.image_sizes[self._rows].astype(np.float64)
        return sizes[:, 0] / sizes[:, 1]
