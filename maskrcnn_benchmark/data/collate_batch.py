"""Samples to one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.hand_over import empty_pixels
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.transforms import Normalize, PendingImage
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, padded_size, to_image_list
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.targets import Targets


def pack_targets(targets: Sequence[ImageTargets]) -> Targets:
    """The objects of N images as one :class:`Targets`; G is the largest number of objects among them.

    Polygons are there when every image has them, and keypoints likewise.
    """
    num_images, slots = len(targets), max(len(item) for item in targets)
    boxes = np.zeros((num_images, slots, 4), dtype=np.float32)
    labels = np.zeros((num_images, slots), dtype=np.int64)
    for row, item in enumerate(targets):
        boxes[row, : len(item)] = item.boxes
        labels[row, : len(item)] = item.labels
    has_polygons = all(item.polygons is not None for item in targets)
    return Targets(
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        polygons=_pack_polygons(targets, slots=slots) if has_polygons else None,
        image_sizes=[item.image_size for item in targets],
        keypoints=_pack_keypoints(targets, slots=slots),
    )


def _pack_keypoints(targets: Sequence[ImageTargets], *, slots: int) -> Tensor | None:
    """Keypoints of N images, [N, slots, P, 3] with zeros in empty slots; None unless every image has them."""
    points = [item.keypoints.points for item in targets if item.keypoints is not None]
    if len(points) < len(targets):
        return None
    packed = np.zeros((len(targets), slots, *points[0].shape[1:]), dtype=np.float32)
    for row, own in zip(packed, points, strict=True):
        row[: len(own)] = own
    return torch.from_numpy(packed)


def _pack_polygons(targets: Sequence[ImageTargets], *, slots: int) -> PackedPolygons:
    """Polygons of N images; the object in slot g of image n is instance n * slots + g, empty slots have no rings."""
    coords, ring_lengths = [], []
    ring_counts = np.zeros((len(targets), slots), dtype=np.int64)
    for row, item in enumerate(targets):
        coords.append(item.polygons.coords)
        ring_lengths.append(np.diff(item.polygons.ring_offsets))
        ring_counts[row, : len(item)] = np.diff(item.polygons.instance_offsets)
    ring_offsets = np.concatenate([[0], *ring_lengths]).astype(np.int64).cumsum()
    instance_offsets = np.concatenate([[0], ring_counts.reshape(-1)]).cumsum()
    return PackedPolygons(
        coords=torch.from_numpy(np.concatenate(coords)),
        ring_offsets=torch.from_numpy(ring_offsets),
        instance_offsets=torch.from_numpy(instance_offsets),
    )


class BatchCollator:
    """Makes a batch (ImageList, Targets, indices) of samples (image, objects, index).

    Args:
        size_divisible: height and width of the batch are padded with zeros to a multiple of this; 0 or 1 adds nothing
            beyond the largest image.
        normalize: what makes the network's input of images that are pixels, uint8 [H, W, 3], or become pixels here.
            None: they stay bytes, [N, 3, H, W] in channels_last order, which `DeviceNormalize` takes, and which are a
            quarter of the memory to hand over. Images that are tensors float32 [3, H, W] are only padded.
        shapes: (height, width) of batches; each batch is padded to the smallest that holds it, if there is one.
    """

    def __init__(
        self,
        size_divisible: int = 0,
        *,
        normalize: Normalize | None = None,
        shapes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.size_divisible = size_divisible
        self.normalize = normalize
        self.shapes = tuple((height, width) for height, width in shapes)

    def __call__(
        self, batch: Sequence[tuple[Tensor | np.ndarray | PendingImage, BoxList | ImageTargets, int]]
    ) -> tuple[ImageList, Targets, tuple[int, ...]]:
        """Collate the samples of one batch."""
        images, targets, indices = zip(*batch, strict=True)
        if isinstance(images[0], (np.ndarray, PendingImage)):
            image_list = self._pixels(images)
            if self.normalize is not None:
                image_list = self.normalize.batch(image_list)
        else:
            image_list = to_image_list(list(images), self.size_divisible, shapes=self.shapes)
        if isinstance(targets[0], ImageTargets):
            return image_list, pack_targets(targets), indices
        return image_list, Targets.from_boxlists(list(targets)), indices

    def _pixels(self, images: Sequence[np.ndarray | PendingImage]) -> ImageList:
        sizes = [image.size if isinstance(image, PendingImage) else image.shape[:2] for image in images]
        array, tensor = empty_pixels(len(images), *padded_size(sizes, self.size_divisible, self.shapes))
        for out, image, (height, width) in zip(array, images, sizes, strict=True):
            if isinstance(image, PendingImage):
                image.write(out[:height, :width])
            else:
                out[:height, :width] = image
            out[:height, width:] = 0
            out[height:] = 0
        return ImageList(tensor, sizes, torch.from_numpy(np.array(sizes, dtype=np.int64)))
