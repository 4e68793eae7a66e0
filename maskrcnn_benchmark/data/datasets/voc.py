"""Data sets in Pascal VOC's own format, as of 2007 and 2012."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, fingerprint_of, open_packed
from maskrcnn_benchmark.data.datasets.packed_dataset import PackedDataset, pack_images
from maskrcnn_benchmark.data.datasets.voc_xml import parse_xml, read_split
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.bounding_box import BoxList


class PascalVOCDataset(PackedDataset):
    """Images of a split with the boxes of their xml files; no masks.

    ``data_dir`` holds Annotations/<id>.xml, JPEGImages/<id>.jpg and ImageSets/Main/<split>.txt. Images come in the
    order of the split. Objects are all but difficult ones and boxes that are empty inside the image; evaluation knows
    the difficult ones by :meth:`get_groundtruth`.

    Args:
        data_dir: the folder, VOC2007 or VOC2012.
        split: "train", "val", "trainval", "test", or another file of ImageSets/Main.
        use_difficult: train on difficult objects too.
        transforms: what happens to a sample.
        remove_images_without_annotations: leave out the images without an object, as training wants it.
        classes: names of the classes in the order of their labels 1 .. K; None takes VOC's 20.

    Raises:
        FileNotFoundError: when there is no such folder or split, or an image of it has no xml.
        ValueError: when a file is faulty (the message names it and the field), or no image is left.
    """

    CLASSES = (
        "__background__", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    )  # fmt: skip
    evaluation = "voc"

    def __init__(
        self,
        data_dir: str | Path,
        split: str,
        use_difficult: bool = False,
        transforms: Compose | None = None,
        *,
        remove_images_without_annotations: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._data_dir = Path(data_dir)
        if not self._data_dir.is_dir():
            raise FileNotFoundError(f"VOC folder {data_dir} does not exist")
        classes = tuple(name.lower() for name in classes) if classes is not None else self.CLASSES[1:]
        split_file = self._data_dir / "ImageSets" / "Main" / f"{split}.txt"
        ids = read_split(split_file)
        files = [self._data_dir / "Annotations" / f"{image_id}.xml" for image_id in ids]
        try:
            fingerprint = fingerprint_of(files, classes)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"annotation file {error.filename} does not exist, but {split_file} lists its image; unpack the "
                "annotations of this year beside the images (those of VOC 2012's test images are not published)"
            ) from None
        packed = open_packed(split_file, partial(_pack, files=files, classes=classes), fingerprint=fingerprint)
        super().__init__(packed, self._data_dir / "JPEGImages", transforms)
        self._usable = (self._boxes[:, 2:] > self._boxes[:, :2]).all(axis=1)
        if not use_difficult:
            self._usable &= ~packed.iscrowd
        if remove_images_without_annotations:
            self._select(np.flatnonzero(self._has_objects()))
            if not len(self):
                raise ValueError(f"split file {split_file}: none of its {len(ids)} images has an object to train on")

    def _image_ids(self, rows: np.ndarray) -> list[str]:
        return [Path(self.packed.file_names[row]).stem for row in rows]

    def _source(self, row: int) -> Path:
        return self._data_dir / "Annotations" / Path(self.packed.file_names[row]).with_suffix(".xml")

    def get_groundtruth(self, index: int) -> BoxList:
        """All objects of image ``index`` as annotated: BoxList with the fields ``labels`` and ``difficult`` (bool)."""
        row = self._rows[index]
        chosen = slice(*self.packed.annotation_offsets[row : row + 2].tolist())
        height, width = self.packed.image_sizes[row].tolist()
        boxes = self.packed.boxes[chosen].copy()
        boxes[:, 2:] += boxes[:, :2] - 1
        truth = BoxList(torch.from_numpy(boxes), (width, height), mode="xyxy")
        truth.add_field("labels", torch.from_numpy(self.packed.labels[chosen].copy()))
        truth.add_field("difficult", torch.from_numpy(self.packed.iscrowd[chosen].copy()))
        return truth

    def map_class_id_to_class_name(self, class_id: int) -> str:
        """The name of a label; 0 is the background."""
        return (self.CLASSES[0], *self.categories)[class_id]


def _pack(split_file: Path, *, files: list[Path], classes: tuple[str, ...]) -> PackedAnnotations:
    label_of = {name: label for label, name in enumerate(classes, start=1)}
    images = [parse_xml(file, label_of=label_of, file_name=f"{file.stem}.jpg") for file in files]
    return pack_images(images, list(enumerate(classes, start=1)))
