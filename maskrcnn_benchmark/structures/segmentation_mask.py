"""SegmentationMask: the masks of one image's objects, as polygons or as bitmaps.

``mode`` says which: in "poly" ``instances`` is a PolygonList, in "mask" a BitmapList. Whatever is given (polygons, RLE,
bitmaps) is converted when the mask is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, WIDTH_OFFSET, check_flip
from maskrcnn_benchmark.structures.polygons import mask_to_polygons

# A ring with fewer vertices covers nothing (pycocotools would read one of two vertices as a box).
MIN_VERTICES = 3


class PolygonInstance:
    """One object: rings, each a flat [2V] float32 tensor x0, y0, x1, y1, ... in pixels; the object is their union.

    Rings with fewer than three vertices are left out.
    """

    def __init__(self, polygons: Sequence[Any], size: tuple[float, float]) -> None:
        rings = [torch.as_tensor(ring, dtype=torch.float32).reshape(-1) for ring in polygons]
        for ring in rings:
            if ring.numel() % 2:
                raise ValueError(f"a polygon needs pairs x, y, but has {ring.numel()} numbers")
        self.polygons = [ring for ring in rings if ring.numel() >= 2 * MIN_VERTICES]
        self.size = tuple(size)

    def __len__(self) -> int:
        return len(self.polygons)

    def map_coordinates(self, scale: tuple[float, float], shift: tuple[float, float], size: Any) -> PolygonInstance:
        """Return the object with every (x, y) moved to scale * (x, y) + shift, in an image of ``size``."""
        scale_xy, shift_xy = torch.tensor(scale, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
        moved = [(ring.reshape(-1, 2) * scale_xy.to(ring) + shift_xy.to(ring)).reshape(-1) for ring in self.polygons]
        return PolygonInstance(moved, size)

    def get_mask_tensor(self) -> Tensor:
        """Return the filled object, [H, W] uint8 of 0 and 1, as pycocotools draws it."""
        from pycocotools import mask as coco_mask

        width, height = _pixels(self.size)
        if not self.polygons:
            return torch.zeros((height, width), dtype=torch.uint8)
        rings = [ring.double().tolist() for ring in self.polygons]
        return torch.from_numpy(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width))))


class PolygonList:
    """The objects of one image as polygons: ``polygons`` is a list of PolygonInstance."""

    def __init__(self, polygons: Sequence[PolygonInstance], size: tuple[float, float]) -> None:
        self.polygons = list(polygons)
        self.size = tuple(size)

    def __len__(self) -> int:
        return len(self.polygons)

    def transpose(self, method: int) -> PolygonList:
        """Flip: x goes to width - 1 - x (legacy: as a pixel index, not as a position)."""
        width, height = self.size
        if method == FLIP_LEFT_RIGHT:
            return self._map((-1.0, 1.0), (width - WIDTH_OFFSET, 0.0), self.size)
        return self._map((1.0, -1.0), (0.0, height - WIDTH_OFFSET), self.size)

    def crop(self, box: tuple[float, float, float, float]) -> PolygonList:
        """Move the origin to the window's corner; the rings keep what lies outside of it."""
        left, top, right, bottom = box
        return self._map((1.0, 1.0), (-left, -top), (right - left, bottom - top))

    def resize(self, size: tuple[float, float]) -> PolygonList:
        """Scale to an image of ``size`` = (width, height)."""
        return self._map((size[0] / self.size[0], size[1] / self.size[1]), (0.0, 0.0), size)

    def select(self, indices: list[int]) -> PolygonList:
        """Return the objects with these indices."""
        return PolygonList([self.polygons[i] for i in indices], self.size)

    def to(self, device: torch.device | str, **kwargs: Any) -> PolygonList:
        """Return itself: polygons stay on the CPU."""
        return self

    def get_mask_tensor(self) -> Tensor:
        """Return the filled objects, [n, H, W] uint8 of 0 and 1."""
        width, height = _pixels(self.size)
        masks = torch.zeros((len(self), height, width), dtype=torch.uint8)
        for instance, mask in zip(self.polygons, masks, strict=True):
            mask.copy_(instance.get_mask_tensor())
        return masks

    def _map(self, scale: tuple[float, float], shift: tuple[float, float], size: Any) -> PolygonList:
        return PolygonList([instance.map_coordinates(scale, shift, size) for instance in self.polygons], size)


class BitmapList:
    """The objects of one image as bitmaps: ``masks`` is [n, H, W] uint8 of 0 and 1."""

    def __init__(self, masks: Tensor, size: tuple[float, float]) -> None:
        self.masks = masks
        self.size = tuple(size)

    def __len__(self) -> int:
        return self.masks.shape[0]

    def transpose(self, method: int) -> BitmapList:
        """Flip the pixels."""
        return BitmapList(self.masks.flip(dims=(2 if method == FLIP_LEFT_RIGHT else 1,)), self.size)

    def crop(self, box: tuple[float, float, float, float]) -> BitmapList:
        """Cut the window out, its corners rounded to pixels and at least one pixel large."""
        left, top, right, bottom = (round(v) for v in box)
        left, top = min(left, self.masks.shape[2] - 1), min(top, self.masks.shape[1] - 1)
        masks = self.masks[:, top : max(bottom, top + 1), left : max(right, left + 1)]
        return BitmapList(masks, (masks.shape[2], masks.shape[1]))

    def resize(self, size: tuple[float, float]) -> BitmapList:
        """Scale to (width, height): bilinear, then 1 where the value is at least one half."""
        width, height = _pixels(size)
        if len(self) == 0:
            return BitmapList(self.masks.new_zeros((0, height, width)), (width, height))
        scaled = torch.nn.functional.interpolate(
            self.masks[None].float(), size=(height, width), mode="bilinear", align_corners=False
        )
        return BitmapList((scaled[0] >= 0.5).to(self.masks.dtype), (width, height))

    def select(self, indices: list[int]) -> BitmapList:
        """Return the objects with these indices."""
        return BitmapList(self.masks[indices], self.size)

    def to(self, device: torch.device | str, **kwargs: Any) -> BitmapList:
        """Return the bitmaps on another device."""
        return BitmapList(self.masks.to(device, **kwargs), self.size)

    def get_mask_tensor(self) -> Tensor:
        """Return ``masks``."""
        return self.masks


class SegmentationMask:
    """The masks of the n objects of one image.

    Args:
        instances: one entry an object: a list of polygons (flat [2V] or [V, 2]), an RLE dict (``size``, ``counts``;
            compressed or not) or a bitmap [H, W]; or a tensor [n, H, W]; or a PolygonList, BitmapList or
            SegmentationMask.
        size: (width, height) of the image in pixels.
        mode: "poly" or "mask", how the masks are kept. Polygons of RLEs and bitmaps run along the pixels' edges and
            fill to the same pixels.

    Raises:
        ValueError: for an unknown mode, or an RLE or bitmap of another size than the image.
        TypeError: for an entry of another kind.
    """

    def __init__(self, instances: Any, size: tuple[int, int], mode: str = "poly") -> None:
        if mode not in ("poly", "mask"):
            raise ValueError(f"mode must be 'poly' or 'mask', not {mode!r}")
        self.size = tuple(size)
        self.mode = mode
        if isinstance(instances, SegmentationMask):
            instances = instances.instances
        if isinstance(instances, PolygonList if mode == "poly" else BitmapList):
            self.instances = instances
        elif mode == "poly":
            entries = instances.masks if isinstance(instances, BitmapList) else instances
            self.instances = PolygonList([_as_polygons(entry, self.size) for entry in entries], self.size)
        else:
            entries = instances.polygons if isinstance(instances, PolygonList) else instances
            masks = [_as_bitmap(entry, self.size) for entry in getattr(entries, "masks", entries)]
            width, height = _pixels(self.size)
            stacked = torch.stack(masks) if masks else torch.zeros((0, height, width), dtype=torch.uint8)
            self.instances = BitmapList(stacked, self.size)

    def transpose(self, method: int) -> SegmentationMask:
        """Return the flipped masks: FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM."""
        check_flip(method)
        return self._with(self.instances.transpose(method))

    def crop(self, box: Sequence[float]) -> SegmentationMask:
        """Return the masks in the window (x1, y1, x2, y2), clamped to the image and at least one pixel large."""
        width, height = self.size
        left, top, right, bottom = (float(v) for v in box)
        left, right = min(max(left, 0.0), width), min(max(right, 0.0), width)
        top, bottom = min(max(top, 0.0), height), min(max(bottom, 0.0), height)
        return self._with(self.instances.crop((left, top, max(right, left + 1), max(bottom, top + 1))))

    def resize(self, size: int | tuple[int, int], *args: Any, **kwargs: Any) -> SegmentationMask:
        """Return the masks for the image resized to (width, height), or to a square."""
        return self._with(self.instances.resize((size, size) if isinstance(size, int) else tuple(size)))

    def convert(self, mode: str) -> SegmentationMask:
        """Return the masks as "poly" or "mask"."""
        return self if mode == self.mode else SegmentationMask(self, self.size, mode)

    def to(self, device: torch.device | str, **kwargs: Any) -> SegmentationMask:
        """Return the masks on another device; polygons stay on the CPU."""
        return self._with(self.instances.to(device, **kwargs))

    def get_mask_tensor(self) -> Tensor:
        """Return uint8 of 0 and 1: [n, H, W], or [H, W] when there is one object."""
        masks = self.instances.get_mask_tensor()
        return masks[0] if len(masks) == 1 else masks

    def __getitem__(self, item: int | slice | Sequence[int] | Tensor) -> SegmentationMask:
        """Select objects by integer, slice, list, or bool or long tensor; always a SegmentationMask."""
        indices = torch.arange(len(self))[item.cpu() if isinstance(item, Tensor) else item]
        return self._with(self.instances.select(indices.reshape(-1).tolist()))

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[SegmentationMask]:
        """Iterate over the objects as SegmentationMasks of one."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        width, height = self.size
        return (
            f"SegmentationMask(num_instances={len(self)}, image_width={width}, image_height={height}, mode={self.mode})"
        )

    @classmethod
    def cat(cls, masks: Sequence[SegmentationMask]) -> SegmentationMask:
        """Join masks of one image; the first one's mode is kept."""
        first = masks[0]
        if any(m.size != first.size for m in masks):
            raise ValueError(f"masks that are joined must be of one image size, not {[m.size for m in masks]}")
        parts = [m.convert(first.mode).instances for m in masks]
        if first.mode == "poly":
            joined = PolygonList([instance for part in parts for instance in part.polygons], first.size)
        else:
            joined = BitmapList(torch.cat([part.masks for part in parts]), first.size)
        return cls(joined, first.size, first.mode)

    def _with(self, instances: PolygonList | BitmapList) -> SegmentationMask:
        """Return a mask of the same mode around other instances."""
        return SegmentationMask(instances, instances.size, self.mode)


def _pixels(size: tuple[float, float]) -> tuple[int, int]:
    """Round (width, height) to whole pixels; a polygon's window may be cut anywhere."""
    return max(round(size[0]), 1), max(round(size[1]), 1)


def _as_polygons(entry: Any, size: tuple[int, int]) -> PolygonInstance:
    """Convert one object of any kind to polygons."""
    if isinstance(entry, PolygonInstance):
        return entry
    if _is_rings(entry):
        return PolygonInstance(entry, size)
    return PolygonInstance(mask_to_polygons(_as_bitmap(entry, size).numpy(force=True)), size)


def _as_bitmap(entry: Any, size: tuple[int, int]) -> Tensor:
    """Convert one object of any kind to a bitmap [H, W] uint8."""
    width, height = _pixels(size)
    if _is_rings(entry):
        entry = PolygonInstance(entry, size)
    if isinstance(entry, PolygonInstance):
        return entry.get_mask_tensor()
    if isinstance(entry, dict) and {"size", "counts"} <= entry.keys():
        bitmap = decode_rle(entry)
    elif isinstance(entry, (np.ndarray, Tensor)) and entry.ndim == 2:
        bitmap = (torch.as_tensor(entry) != 0).to(torch.uint8)
    else:
        raise TypeError(
            f"a mask must be a list of polygons, an RLE dict with 'size' and 'counts' or a bitmap [H, W], not {entry!r}"
        )
    if bitmap.shape != (height, width):
        raise ValueError(
            f"a mask of {list(bitmap.shape)} pixels does not fit an image of {[height, width]} (height, width)"
        )
    return bitmap


def _is_rings(entry: Any) -> bool:
    """Return whether the entry is a list of polygons."""
    return isinstance(entry, (list, tuple)) and all(not isinstance(r, (int, float, str, dict)) for r in entry)


def decode_rle(rle: dict[str, Any]) -> Tensor:
    """Decode a COCO RLE, {"size": [h, w], "counts": bytes, str, or list of run lengths}, to [h, w] uint8 of 0 and 1."""
    from pycocotools import mask as coco_mask

    counts = rle["counts"]
    if isinstance(counts, (list, tuple)):
        height, width = rle["size"]
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return torch.from_numpy(coco_mask.decode({"size": list(rle["size"]), "counts": rle["counts"]}))
