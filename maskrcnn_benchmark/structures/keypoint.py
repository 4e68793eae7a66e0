"""Keypoints: the named points of one image's objects, and their cells in a heat map.

Letters: n objects, P points of an object, M cells along a side of a heat map. A point is (x, y, v), x and y in pixels;
v is COCO's visibility: 0 not labelled (then x = y = 0), 1 labelled but hidden, 2 seen. Points with v > 0 are visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, WIDTH_OFFSET, check_flip


class Keypoints:
    """The points of the n objects of one image, and named fields with one entry an object (logits, ...).

    Args:
        keypoints: [n, P, 3], or anything that holds as many numbers in n rows; stored as float32.
        size: (width, height) of the image in pixels.
        mode: kept as it is given; it has no meaning.
        flip_inds: [P], which point of the mirror image each point becomes: left and right change places. None: those of
            the class.

    Attributes:
        keypoints: [n, P, 3] float32.
    """

    FLIP_INDS: Sequence[int] | None = None

    def __init__(
        self, keypoints: Any, size: tuple[int, int], mode: Any = None, *, flip_inds: Sequence[int] | None = None
    ) -> None:
        points = torch.as_tensor(keypoints, dtype=torch.float32)
        if points.ndim != 3:
            points = points.reshape(len(points), -1, 3) if points.numel() else points.new_zeros((len(points), 0, 3))
        if points.shape[2] != 3:
            raise ValueError(f"keypoints must have the shape [n, P, 3], but have {list(points.shape)}")
        self.keypoints = points
        self.size = tuple(size)
        self.mode = mode
        self.flip_inds = self.FLIP_INDS if flip_inds is None else flip_inds
        self.extra_fields: dict[str, Any] = {}

    def resize(self, size: tuple[int, int], *args: Any, **kwargs: Any) -> Keypoints:
        """Return the points in the image scaled to ``size`` = (width, height)."""
        ratios = self.keypoints.new_tensor((size[0] / self.size[0], size[1] / self.size[1], 1.0))
        return self._with(self.keypoints * ratios, size)

    def transpose(self, method: int) -> Keypoints:
        """Return the points of the flipped image: FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM. Pixel x goes to width - 1 - x.

        Either flip shows a left hand as a right one, so points change places by ``flip_inds``.

        Raises:
            ValueError: it is not known which points change places.
        """
        check_flip(method)
        if self.flip_inds is None:
            raise ValueError(
                "it is not known which keypoints are left and right ones; give Keypoints(..., flip_inds=...), "
                "or use PersonKeypoints"
            )
        order = torch.as_tensor(self.flip_inds, device=self.keypoints.device)
        x, y, visibility = self.keypoints[:, order].unbind(dim=2)
        width, height = self.size
        if method == FLIP_LEFT_RIGHT:
            x = width - WIDTH_OFFSET - x
        else:
            y = height - WIDTH_OFFSET - y
        return self._with(_without_position_where_unlabelled(x, y, visibility), self.size)

    def crop(self, box: Sequence[float]) -> Keypoints:
        """Return the points in the window ``box`` = (x1, y1, x2, y2), x2 and y2 exclusive; others become unlabelled."""
        left, top, right, bottom = (float(v) for v in box)
        x, y, visibility = self.keypoints.unbind(dim=2)
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        points = _without_position_where_unlabelled(x - left, y - top, torch.where(inside, visibility, 0.0))
        size = tuple(int(v) if v == int(v) else v for v in (right - left, bottom - top))
        return self._with(points, size)

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        """Return the points, and the fields that have ``to``, on another device."""
        fields = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self.extra_fields.items()
        }
        return self._with(self.keypoints.to(*args, **kwargs), self.size, fields)

    def add_field(self, field: str, field_data: Any) -> None:
        """Set the field ``field``; ``field_data`` has one entry an object."""
        self.extra_fields[field] = field_data

    def get_field(self, field: str) -> Any:
        """Return the field ``field``; raises KeyError when it is missing."""
        if field not in self.extra_fields:
            raise KeyError(f"field {field!r} is not in {self!r}; its fields are {list(self.extra_fields)}")
        return self.extra_fields[field]

    def has_field(self, field: str) -> bool:
        """Return whether the field is there."""
        return field in self.extra_fields

    def __getitem__(self, item: Any) -> Keypoints:
        """Select objects with their fields, by integer, slice, list, or bool or long tensor."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"object {item} of {len(self)}")
            item = slice(item, item + 1 or None)
        fields = {name: value[item] for name, value in self.extra_fields.items()}
        return self._with(self.keypoints[item], self.size, fields)

    @classmethod
    def cat(cls, parts: Sequence[Keypoints]) -> Keypoints:
        """Join the objects of one image; all parts need the fields of the first, which must be tensors."""
        first = parts[0]
        fields = {name: torch.cat([part.get_field(name) for part in parts]) for name in first.extra_fields}
        return first._with(torch.cat([part.keypoints for part in parts]), first.size, fields)

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def __repr__(self) -> str:
        width, height = self.size
        return f"{type(self).__name__}(num_instances={len(self)}, image_width={width}, image_height={height})"

    def _with(self, keypoints: Tensor, size: Any, fields: dict[str, Any] | None = None) -> Keypoints:
        """Return Keypoints of this class with these points, and this one's fields where none are given."""
        result = type(self)(keypoints, size, self.mode, flip_inds=self.flip_inds)
        result.extra_fields.update(self.extra_fields if fields is None else fields)
        return result


def mirrored_indices(names: Sequence[str]) -> list[int]:
    """Return [P]: for each point the index of the point that takes its place in a mirror image.

    Two points change places when their names differ in "left" and "right" alone, whatever the case of the letters
    ("left_eye" and "right_eye", "eyeRight" and "eyeLeft"); a point without a partner keeps its place.
    """
    index_of = {name.lower(): index for index, name in enumerate(names)}
    partners = [_swap_sides(name.lower()) for name in names]
    return [index_of.get(partner, index) for index, partner in enumerate(partners)]


def _swap_sides(name: str) -> str:
    """Return a name in small letters with "left" and "right" exchanged."""
    return "left".join(part.replace("left", "right") for part in name.split("right"))


def _without_position_where_unlabelled(x: Tensor, y: Tensor, visibility: Tensor) -> Tensor:
    """Stack coordinates and visibilities [n, P] to [n, P, 3], with zeros for the points that are not labelled."""
    points = torch.stack((x, y, visibility), dim=2)
    return torch.where(visibility[..., None] == 0, 0.0, points)


class PersonKeypoints(Keypoints):
    """COCO's 17 points of a person."""

    NAMES = (
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    )
    FLIP_INDS = tuple(mirrored_indices(NAMES))
    # Pairs of points between which a line is drawn.
    CONNECTIONS = (
        *((0, 1), (0, 2), (1, 3), (2, 4)),  # nose to eyes, eyes to ears
        *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),  # shoulders and arms
        *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),  # hips and legs
    )


def keypoints_of(points: Tensor, size: tuple[int, int]) -> Keypoints:
    """Return the points [n, P, 3] of one image: PersonKeypoints when there are 17 an object, Keypoints otherwise."""
    kind = PersonKeypoints if points.shape[1] == len(PersonKeypoints.NAMES) else Keypoints
    return kind(points, size)


def keypoints_to_heat_map(keypoints: Tensor, rois: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
    """Find the cell of each region's heat map in which each point lies.

    The map covers the region from x1 to x2, without the legacy pixel; a point on x2 or y2 lies in the last cell.

    Args:
        keypoints: [R, P, 3], one row of points a region.
        rois: [R, 4] xyxy.
        heatmap_size: M.

    Returns:
        cells: [R, P] int64, row * M + column; 0 where not valid.
        valid: [R, P] int64, 1 where the point is visible and inside the region.
    """
    first, last = rois[:, None, :2], rois[:, None, 2:]
    points = keypoints[..., :2]
    # A region without extent divides by zero: what is not a number is not valid either.
    cells = ((points - first) * (heatmap_size / (last - first))).floor()
    cells = torch.where(points == last, heatmap_size - 1.0, cells)
    inside = ((cells >= 0) & (cells < heatmap_size)).all(dim=2)
    valid = inside & (keypoints[..., 2] > 0)
    columns, rows = torch.where(valid[..., None], cells, 0.0).long().unbind(dim=2)
    return rows * heatmap_size + columns, valid.long()
