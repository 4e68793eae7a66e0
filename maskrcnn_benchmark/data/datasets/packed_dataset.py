"""What data sets with packed annotations share: their images, and packing image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.datasets.image_ids import ImageIds, IndexMap
from maskrcnn_benchmark.data.datasets.packed import PackedAnnotations, PackedStrings, offsets_of
from maskrcnn_benchmark.data.image_io import decode_image, read_file
from maskrcnn_benchmark.data.image_targets import ImageKeypoints, ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.transforms import Compose

_BLOCK = 1 << 15  # annotations at a time; a multiple of 8


@dataclass(frozen=True)
class ImageAnnotations:
    """What an annotation file says of one image with A objects.

    Attributes:
        file_name: of the image, below the image folder.
        size: (height, width).
        boxes: float32 [A, 4], inclusive xyxy pixels.
        labels: int64 [A], 1 .. K.
        is_ignored: bool [A], objects that evaluation counts neither as found nor as missed; None: none.
        rings: polygons of each object, each ring float32 [V, 2]; None where there are no masks.
    """

    file_name: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    is_ignored: np.ndarray | None = None
    rings: list[list[np.ndarray]] | None = field(default=None, repr=False)


def pack_images(images: Sequence[ImageAnnotations], categories: Sequence[tuple[int, str]]) -> PackedAnnotations:
    """Pack images, whose ids become 0, 1, ...

    Args:
        images: in the order of the data set.
        categories: (id, name) of label 1, 2, ...
    """
    counts = [len(image.labels) for image in images]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(image.boxes for image in images)])
    extents = boxes[:, 2:] - boxes[:, :2] + 1
    ignored = [
        image.is_ignored if image.is_ignored is not None else np.zeros(n, bool)
        for image, n in zip(images, counts, strict=True)
    ]
    objects = [rings for image, n in zip(images, counts, strict=True) for rings in (image.rings or [[]] * n)]
    rings = [ring for own in objects for ring in own]
    return PackedAnnotations(
        image_ids=np.arange(len(images), dtype=np.int64),
        image_sizes=np.array([image.size for image in images], dtype=np.int32).reshape(-1, 2),
        file_names=PackedStrings.pack([image.file_name for image in images]),
        category_ids=np.array([category_id for category_id, _ in categories], dtype=np.int64),
        category_names=PackedStrings.pack([name for _, name in categories]),
        keypoint_names=PackedStrings.pack([""] * len(categories)),
        annotation_offsets=offsets_of(counts),
        boxes=np.concatenate([boxes[:, :2], extents], axis=1),
        labels=np.concatenate([np.zeros(0, np.int64), *(image.labels for image in images)]),
        iscrowd=np.concatenate([np.zeros(0, bool), *ignored]),
        areas=extents.prod(axis=1),
        polygon_offsets=offsets_of([len(own) for own in objects]),
        ring_offsets=offsets_of([len(ring) for ring in rings]),
        coords=np.concatenate([np.zeros((0, 2), np.float32), *rings]),
        keypoint_offsets=np.zeros(len(boxes) + 1, dtype=np.int64),
        keypoints=np.zeros((0, 3), dtype=np.float32),
    )


class PackedDataset(DetectionDataset):
    """Images of a folder with packed annotations; the formats say which annotations are objects.

    Args:
        packed: the annotations.
        root: folder of the images.
        transforms: what happens to a sample.
    """

    def __init__(self, packed: PackedAnnotations, root: Path, transforms: Compose | None = None) -> None:
        super().__init__(transforms)
        self.packed = packed
        self.root = root
        self.categories = tuple(packed.category_names[i] for i in range(len(packed.category_names)))
        self.contiguous_category_id_to_json_id = dict(enumerate(packed.category_ids.tolist(), start=1))
        self._usable = np.ones(len(packed.labels), dtype=bool)
        self._select(np.arange(len(packed.image_ids)))

    # Every process of a run has this object. What is as long as the annotations therefore stays in the mapped file, and
    # of what a data set decides itself there is a bit an annotation and a number an image.

    @property
    def _usable(self) -> np.ndarray:
        """Which annotations are objects, bool [A]."""
        return np.unpackbits(self._usable_bits, count=len(self.packed.labels)).view(bool)

    @_usable.setter
    def _usable(self, usable: np.ndarray) -> None:
        self._usable_bits = np.packbits(usable)

    @property
    def _boxes(self) -> np.ndarray:
        """All boxes as inclusive xyxy inside their images, float32 [A, 4]."""
        packed = self.packed
        sizes = np.repeat(packed.image_sizes, np.diff(packed.annotation_offsets), axis=0)
        return _clipped(packed.boxes, sizes)

    @property
    def ids(self) -> ImageIds:
        """The data set's own image ids, in its order."""
        return ImageIds(self._rows, self._image_ids)

    @property
    def id_to_img_map(self) -> Mapping[int, Any]:
        """Index to the data set's own image id."""
        return IndexMap(self.ids)

    def _select(self, rows: np.ndarray) -> None:
        """Take some images only, int64 rows of ``packed``."""
        self._rows = rows.astype(np.int32)

    def file_names(self) -> list[str]:
        """Paths below ``root`` of all images that have been packed, whether this data set has taken them or not."""
        return [self.packed.file_names[row] for row in range(len(self.packed.file_names))]

    def take(self, rows: Sequence[int]) -> None:
        """Keep only those images that are among some, given by their positions in :meth:`file_names`."""
        self._select(self._rows[np.isin(self._rows, np.asarray(rows, dtype=np.int64))])

    def _image_ids(self, rows: np.ndarray) -> list[Any]:
        return self.packed.image_ids[rows].tolist()

    def _source(self, row: int) -> Path:
        """The annotation file of an image, for messages."""
        raise NotImplementedError(f"{type(self).__name__} must define _source(row)")

    def _choose(self, is_object: Callable[[slice, np.ndarray], np.ndarray]) -> None:
        """Say which annotations are objects, without arrays of their length: memory once taken stays with a process.

        Args:
            is_object: bool [n] of the annotations of a slice, given with their boxes float32 [n, 4], inclusive xyxy and
                inside their images.
        """
        bits = [np.zeros(0, dtype=np.uint8)]
        for part, rows in self._blocks():
            boxes = _clipped(self.packed.boxes[part], self.packed.image_sizes[rows])
            bits.append(np.packbits(is_object(part, boxes)))
        self._usable_bits = np.concatenate(bits)

    def _has_objects(self) -> np.ndarray:
        """Which images have a usable object, bool [I]."""
        found = np.zeros(len(self.packed.image_ids), dtype=bool)
        for part, rows in self._blocks():
            found[rows[self._usable_of(part)]] = True
        return found

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All annotations, some at a time: a slice that begins at a multiple of 8, and the row of each one's image."""
        for begin in range(0, len(self.packed.labels), _BLOCK):
            part = slice(begin, min(begin + _BLOCK, len(self.packed.labels)))
            annotations = np.arange(part.start, part.stop)
            yield part, np.searchsorted(self.packed.annotation_offsets, annotations, side="right") - 1

    def _usable_of(self, part: slice) -> np.ndarray:
        """Which annotations of a slice are objects, bool."""
        first = part.start - part.start % 8
        bits = np.unpackbits(self._usable_bits[first // 8 : -(-part.stop // 8)])
        return bits[part.start - first : part.stop - first].view(bool)

    def __len__(self) -> int:
        return len(self._rows)

    def image_path(self, index: int) -> Path:
        """The file of image ``index``."""
        return self.root / self.packed.file_names[self._rows[index]]

    def load_image(self, index: int) -> np.ndarray:
        """Decode image ``index``.

        Raises:
            FileNotFoundError: when its file does not exist.
            ValueError: when the file is damaged or its size is not the one in the annotations.
        """
        return self.begin_image(index)()

    def begin_image(self, index: int) -> Callable[[], np.ndarray]:
        """Read the file of image ``index``; what is returned decodes it. Between them, errors are `load_image`'s."""
        path = self.image_path(index)
        return partial(self._decode, index, read_file(path), path)

    def _decode(self, index: int, data: bytes, path: Path) -> np.ndarray:
        image = decode_image(data, name=str(path))
        row = self._rows[index]
        height, width = self.packed.image_sizes[row].tolist()
        if image.shape[:2] != (height, width):
            raise ValueError(
                f"image {path} is {image.shape[1]}x{image.shape[0]} pixels, but {self._source(row)} says "
                f"{width}x{height} (width x height); correct it, or store the image without an EXIF rotation if it has "
                "one"
            )
        return image

    def load_targets(self, index: int) -> ImageTargets:
        """The objects of image ``index``: clipped boxes, labels, and polygons and keypoints where there are such."""
        row = self._rows[index]
        begin, end = self.packed.annotation_offsets[row : row + 2].tolist()
        chosen = begin + np.flatnonzero(self._usable_of(slice(begin, end)))
        height, width = self.packed.image_sizes[row].tolist()
        return ImageTargets(
            boxes=_clipped(self.packed.boxes[chosen], np.array([[height, width]])),
            labels=self.packed.labels[chosen],
            image_size=(height, width),
            polygons=ImagePolygons(*self.packed.take_polygons(chosen)) if self.has_masks else None,
            keypoints=self._keypoints(chosen) if self.has_keypoints else None,
        )

    def _keypoints(self, annotations: np.ndarray) -> ImageKeypoints:
        """Keypoints of some annotations, int64 [G]; asked for where there are keypoints."""
        raise NotImplementedError(f"{type(self).__name__} has keypoints, so it must define _keypoints(annotations)")

    def get_img_info(self, index: int) -> dict[str, Any]:
        """``id``, ``height``, ``width`` and ``file_name`` of image ``index``."""
        row = self._rows[index]
        height, width = self.packed.image_sizes[row].tolist()
        return {"id": self.ids[index], "height": height, "width": width, "file_name": self.packed.file_names[row]}

    def aspect_ratios(self) -> np.ndarray:
        """Height / width of every image, float64 [len(self)]."""
        sizes = self.packed.image_sizes[self._rows].astype(np.float64)
        return sizes[:, 0] / sizes[:, 1]


def _clipped(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes x, y, width, height float32 [n, 4] as inclusive xyxy inside images of sizes (height, width) [n or 1, 2]."""
    corners = boxes.copy()
    corners[:, 2:] = corners[:, :2] + np.maximum(corners[:, 2:] - 1, 0)
    last = (sizes[:, ::-1] - 1).astype(np.float32)
    return np.minimum(np.maximum(corners, 0), np.concatenate([last, last], axis=1))
