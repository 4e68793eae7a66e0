"""Targets: the ground truth of a batch as a few tensors of fixed shape.

Legend: N images, K classes, G slots an image (as many as the image with most objects needs), P keypoints an object. A
slot whose label is 0 is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoints_of
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask


@dataclass
class Targets:
    """The ground truth of N images. Indexing and iterating give one BoxList an image."""

    boxes: Tensor  # [N, G, 4] float32, inclusive xyxy pixels; zeros in padding
    labels: Tensor  # [N, G] int64, 1 to K - 1; 0 = padding
    polygons: PackedPolygons | None  # instance n * G + g belongs to slot (n, g); padding has no rings
    image_sizes: list[tuple[int, int]]  # N pairs (height, width) in pixels
    keypoints: Tensor | None = None  # [N, G, P, 3] float32 x, y in pixels and visibility; zeros in padding

    @classmethod
    def from_boxlists(cls, boxlists: Sequence[BoxList]) -> Targets:
        """Pack BoxLists with the field "labels", and where there are such "masks" (SegmentationMask) and "keypoints".

        Images without objects need no fields. Masks that are bitmaps become polygons that fill to the same pixels.
        Raises ValueError for no images, labels that are missing or below 1, and masks or keypoints on some of the
        images only.
        """
        if not boxlists:
            raise ValueError("a batch of targets needs at least one image, but got none")
        for index, boxlist in enumerate(boxlists):
            _check_labels(boxlist, index)
        slots = max(len(boxlist) for boxlist in boxlists)
        boxes = boxlists[0].bbox.new_zeros((len(boxlists), slots, 4))
        labels = torch.zeros((len(boxlists), slots), dtype=torch.int64, device=boxes.device)
        for n, boxlist in enumerate(boxlists):
            if len(boxlist):
                boxes[n, : len(boxlist)] = boxlist.convert("xyxy").bbox
                labels[n, : len(boxlist)] = boxlist.get_field("labels")
        sizes = [(boxlist.size[1], boxlist.size[0]) for boxlist in boxlists]
        return cls(boxes, labels, _pack_masks(boxlists, slots), sizes, _pack_keypoints(boxlists, slots))

    def to_boxlists(self) -> list[BoxList]:
        """Return one BoxList an image, without padding, with "labels" and, if there are such, "masks", "keypoints"."""
        return list(self)

    @property
    def valid(self) -> Tensor:
        """[N, G] bool: which slots hold an object."""
        return self.labels > 0

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """Return the targets on another device."""
        return Targets(
            self.boxes.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.polygons.to(device, non_blocking=non_blocking) if self.polygons is not None else None,
            self.image_sizes,
            self.keypoints.to(device, non_blocking=non_blocking) if self.keypoints is not None else None,
        )

    def pin_memory(self) -> Targets:
        """Return the targets in page-locked memory, from which copies to a GPU overlap with work."""
        polygons = self.polygons.pin_memory() if self.polygons is not None else None
        keypoints = self.keypoints.pin_memory() if self.keypoints is not None else None
        return Targets(self.boxes.pin_memory(), self.labels.pin_memory(), polygons, self.image_sizes, keypoints)

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> BoxList:
        """Return the ground truth of one image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a batch of {len(self)}")
        n = index % len(self)
        height, width = self.image_sizes[n]
        slots = torch.nonzero(self.labels[n]).flatten()
        boxlist = BoxList(self.boxes[n, slots], (width, height))
        boxlist.add_field("labels", self.labels[n, slots])
        if self.polygons is not None:
            first = n * self.labels.shape[1]
            rings = [self.polygons.instance(first + g) for g in slots.tolist()]
            boxlist.add_field("masks", SegmentationMask(rings, (width, height), mode="poly"))
        if self.keypoints is not None:
            boxlist.add_field("keypoints", keypoints_of(self.keypoints[n, slots], (width, height)))
        return boxlist

    def __iter__(self) -> Iterator[BoxList]:
        return (self[n] for n in range(len(self)))


def _check_labels(boxlist: BoxList, index: int) -> None:
    """Raise ValueError unless every box has a label of 1 or more."""
    if not len(boxlist):
        return
    if not boxlist.has_field("labels"):
        raise ValueError(
            f"image {index} has {len(boxlist)} boxes but no field 'labels'; its fields: {boxlist.fields()}"
        )
    labels = boxlist.get_field("labels")
    if labels.shape != (len(boxlist),) or not bool((labels > 0).all()):
        raise ValueError(f"image {index}: {len(boxlist)} boxes need as many labels of 1 or more, but have {labels}")


def _pack_masks(boxlists: Sequence[BoxList], slots: int) -> PackedPolygons | None:
    """Pack the masks of all images in the order of the slots; None when no image has masks."""
    if not any(boxlist.has_field("masks") for boxlist in boxlists):
        return None
    instances: list[list[Tensor]] = []
    for n, boxlist in enumerate(boxlists):
        if len(boxlist) and not boxlist.has_field("masks"):
            raise ValueError(f"image {n} has boxes but no field 'masks', while other images of the batch have masks")
        if len(boxlist):
            masks = boxlist.get_field("masks").convert("poly")
            if len(masks) != len(boxlist):
                raise ValueError(f"image {n} has {len(boxlist)} boxes but {len(masks)} masks")
            instances += [instance.polygons for instance in masks.instances.polygons]
        instances += [[]] * (slots - len(boxlist))
    return PackedPolygons.from_instances(instances).to(boxlists[0].bbox.device)


def _pack_keypoints(boxlists: Sequence[BoxList], slots: int) -> Tensor | None:
    """Pack the keypoints of all images in the order of the slots, [N, G, P, 3]; None when no image has keypoints."""
    fields = {n: b.get_field("keypoints").keypoints for n, b in enumerate(boxlists) if b.has_field("keypoints")}
    if not fields:
        return None
    counts = {points.shape[1] for points in fields.values()}
    if len(counts) > 1:
        raise ValueError(f"the objects of a batch must have one number of keypoints, but have {sorted(counts)}")
    keypoints = boxlists[0].bbox.new_zeros((len(boxlists), slots, counts.pop(), 3))
    for n, boxlist in enumerate(boxlists):
        if len(boxlist) and n not in fields:
            raise ValueError(f"image {n} has boxes but no field 'keypoints', while other images of the batch have them")
        if len(boxlist) != len(fields.get(n, boxlist)):
            raise ValueError(f"image {n} has {len(boxlist)} boxes but keypoints of {len(fields[n])} objects")
        if len(boxlist):
            keypoints[n, : len(boxlist)] = fields[n]
    return keypoints
