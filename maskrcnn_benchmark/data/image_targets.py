"""The objects of one image as flat arrays, and what geometry does to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class ImagePolygons:
    """Polygons of G objects: object -> rings -> vertices.

    Attributes:
        coords: float32 [V, 2], x and y in pixels of the image.
        ring_offsets: int64 [Q + 1], first vertex of each ring.
        instance_offsets: int64 [G + 1], first ring of each object.
    """

    coords: np.ndarray
    ring_offsets: np.ndarray
    instance_offsets: np.ndarray


@dataclass(frozen=True)
class ImageKeypoints:
    """Keypoints of G objects, P of each.

    Attributes:
        points: float32 [G, P, 3], x and y in pixels of the image and visibility; zeros where that is 0.
        mirrored: int64 [P], the keypoint that takes the place of each in a mirror image.
    """

    points: np.ndarray
    mirrored: np.ndarray

    def mapped(self, scale: np.ndarray, shift: np.ndarray) -> ImageKeypoints:
        """The keypoints at scale * (x, y) + shift; where one of the two scales is negative, left and right swap."""
        points = self.points[:, self.mirrored] if scale.prod() < 0 else self.points.copy()
        points[..., :2] = points[..., :2] * scale + shift
        points[points[..., 2] == 0] = 0
        return replace(self, points=points)


@dataclass(frozen=True)
class ImageTargets:
    """The objects of one image.

    Attributes:
        boxes: float32 [G, 4], inclusive xyxy pixels.
        labels: int64 [G], 1 .. K.
        image_size: (height, width).
        polygons: None when the data set has no masks.
        keypoints: None when the data set has no keypoints.
    """

    boxes: np.ndarray
    labels: np.ndarray
    image_size: tuple[int, int]
    polygons: ImagePolygons | None = None
    keypoints: ImageKeypoints | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def resize(self, size: tuple[int, int]) -> ImageTargets:
        """The same objects in the image scaled to ``size`` (height, width)."""
        scale = np.float32([size[1] / self.image_size[1], size[0] / self.image_size[0]])
        boxes = (self.boxes.reshape(-1, 2, 2) * scale).reshape(-1, 4)
        return self._mapped(boxes=boxes, scale=scale, shift=np.float32([0, 0]), size=size)

    def flip_left_right(self) -> ImageTargets:
        """The same objects in the image mirrored left to right: pixel x becomes width - 1 - x."""
        last = np.float32(self.image_size[1] - 1)
        boxes = self.boxes.copy()
        boxes[:, 0], boxes[:, 2] = last - self.boxes[:, 2], last - self.boxes[:, 0]
        return self._mapped(boxes=boxes, scale=np.float32([-1, 1]), shift=np.float32([last, 0]), size=self.image_size)

    def flip_top_bottom(self) -> ImageTargets:
        """The same objects in the image mirrored top to bottom: pixel y becomes height - 1 - y."""
        last = np.float32(self.image_size[0] - 1)
        boxes = self.boxes.copy()
        boxes[:, 1], boxes[:, 3] = last - self.boxes[:, 3], last - self.boxes[:, 1]
        return self._mapped(boxes=boxes, scale=np.float32([1, -1]), shift=np.float32([0, last]), size=self.image_size)

    def _mapped(
        self, *, boxes: np.ndarray, scale: np.ndarray, shift: np.ndarray, size: tuple[int, int]
    ) -> ImageTargets:
        polygons = self.polygons
        if polygons is not None:
            polygons = replace(polygons, coords=polygons.coords * scale + shift)
        keypoints = self.keypoints.mapped(scale, shift) if self.keypoints is not None else None
        return replace(self, boxes=boxes, image_size=size, polygons=polygons, keypoints=keypoints)
