"""BoxList: the boxes of one image with fields beside them. The face of the model at its door.

Coordinates follow the legacy convention of the published weights: a box holds its first and last pixel, so that its
width is x2 - x1 + 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

FLIP_LEFT_RIGHT = 0
FLIP_TOP_BOTTOM = 1

# Pixels between x2 - x1 and the width: the one place of the legacy convention in this room.
WIDTH_OFFSET = 1


class BoxList:
    """The boxes of one image, and named fields with one entry a box (labels, scores, masks, ...).

    Args:
        bbox: [n, 4] boxes in pixels; anything that ``torch.as_tensor`` takes; stored as float32.
        image_size: (width, height) of the image in pixels.
        mode: "xyxy" (first and last pixel, inclusive) or "xywh" (first pixel, width, height).

    Raises:
        ValueError: when the shape is not [n, 4] or the mode is unknown.
    """

    def __init__(self, bbox: Any, image_size: tuple[int, int], mode: str = "xyxy") -> None:
        bbox = torch.as_tensor(bbox, dtype=torch.float32)
        if bbox.ndim == 1 and bbox.numel() == 0:  # an empty list
            bbox = bbox.reshape(0, 4)
        if bbox.ndim != 2 or bbox.shape[1] != 4:
            raise ValueError(f"boxes must have the shape [n, 4], but have {list(bbox.shape)}")
        _check_mode(mode)
        self.bbox = bbox
        self.size = tuple(image_size)
        self.mode = mode
        self.extra_fields: dict[str, Any] = {}

    def add_field(self, field: str, field_data: Any) -> None:
        """Set the field ``field``; ``field_data`` has one entry a box."""
        self.extra_fields[field] = field_data

    def get_field(self, field: str) -> Any:
        """Return the field ``field``; raises KeyError when it is missing."""
        if field not in self.extra_fields:
            raise KeyError(f"field {field!r} is not in {self!r}; its fields are {self.fields()}")
        return self.extra_fields[field]

    def has_field(self, field: str) -> bool:
        """Return whether the field is there."""
        return field in self.extra_fields

    def fields(self) -> list[str]:
        """Return the names of the fields in the order in which they were added."""
        return list(self.extra_fields)

    def copy_with_fields(self, fields: str | Sequence[str], skip_missing: bool = False) -> BoxList:
        """Return the boxes with only the named fields; a missing one raises KeyError unless ``skip_missing``."""
        result = BoxList(self.bbox, self.size, self.mode)
        for field in [fields] if isinstance(fields, str) else fields:
            if self.has_field(field) or not skip_missing:
                result.add_field(field, self.get_field(field))
        return result

    def convert(self, mode: str) -> BoxList:
        """Return the same boxes as "xyxy" or "xywh" (width = x2 - x1 + 1); fields are shared."""
        _check_mode(mode)
        if mode == self.mode:
            return self
        x, y, a, b = self.bbox.unbind(dim=1)
        if mode == "xywh":
            bbox = torch.stack((x, y, a - x + WIDTH_OFFSET, b - y + WIDTH_OFFSET), dim=1)
        else:
            bbox = torch.stack((x, y, x + (a - WIDTH_OFFSET).clamp(min=0), y + (b - WIDTH_OFFSET).clamp(min=0)), dim=1)
        return self._with(bbox, mode=mode, fields=self.extra_fields)

    def resize(self, size: tuple[int, int], *args: Any, **kwargs: Any) -> BoxList:
        """Return the boxes for the image resized to ``size`` = (width, height); masks are resized with them."""
        ratios = (size[0] / self.size[0], size[1] / self.size[1])
        # Scaling width and height like coordinates, as the published code does when both ratios agree, differs from
        # scaling the corners by a fraction of a pixel in xywh mode.
        source = self if ratios[0] == ratios[1] else self.convert("xyxy")
        bbox = source.bbox * source.bbox.new_tensor(ratios * 2)
        fields = {
            name: value
            if isinstance(value, Tensor) or not hasattr(value, "resize")
            else value.resize(size, *args, **kwargs)
            for name, value in self.extra_fields.items()
        }
        return self._with(bbox, size=size, mode=source.mode, fields=fields).convert(self.mode)

    def transpose(self, method: int) -> BoxList:
        """Return the boxes of the flipped image: FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM. Pixel x goes to width - 1 - x."""
        check_flip(method)
        x1, y1, x2, y2 = self.convert("xyxy").bbox.unbind(dim=1)
        width, height = self.size
        if method == FLIP_LEFT_RIGHT:
            x1, x2 = width - x2 - WIDTH_OFFSET, width - x1 - WIDTH_OFFSET
        else:
            y1, y2 = height - y2 - WIDTH_OFFSET, height - y1 - WIDTH_OFFSET
        fields = {
            name: value if isinstance(value, Tensor) or not hasattr(value, "transpose") else value.transpose(method)
            for name, value in self.extra_fields.items()
        }
        return self._with(torch.stack((x1, y1, x2, y2), dim=1), mode="xyxy", fields=fields).convert(self.mode)

    def crop(self, box: Sequence[float]) -> BoxList:
        """Return the boxes inside the window ``box`` = (x1, y1, x2, y2), clamped to it; x2 and y2 are exclusive."""
        left, top, right, bottom = (float(v) for v in box)
        width, height = right - left, bottom - top
        x1, y1, x2, y2 = self.convert("xyxy").bbox.unbind(dim=1)
        bbox = torch.stack(
            (
                (x1 - left).clamp(0, width),
                (y1 - top).clamp(0, height),
                (x2 - left).clamp(0, width),
                (y2 - top).clamp(0, height),
            ),
            dim=1,
        )
        fields = {
            name: value if isinstance(value, Tensor) or not hasattr(value, "crop") else value.crop(box)
            for name, value in self.extra_fields.items()
        }
        size = tuple(int(v) if v == int(v) else v for v in (width, height))
        return self._with(bbox, size=size, mode="xyxy", fields=fields).convert(self.mode)

    def clip_to_image(self, remove_empty: bool = True) -> BoxList:
        """Clamp the boxes to the image, in this BoxList itself, and return it.

        With ``remove_empty`` return a new BoxList without those that are left with x2 <= x1 or y2 <= y1.
        """
        x1, y1, x2, y2 = self.convert("xyxy").bbox.unbind(dim=1)
        last_x, last_y = self.size[0] - WIDTH_OFFSET, self.size[1] - WIDTH_OFFSET
        x1, x2, y1, y2 = x1.clamp(0, last_x), x2.clamp(0, last_x), y1.clamp(0, last_y), y2.clamp(0, last_y)
        self.bbox = self._with(torch.stack((x1, y1, x2, y2), dim=1), mode="xyxy").convert(self.mode).bbox
        return self[(x2 > x1) & (y2 > y1)] if remove_empty else self

    def area(self) -> Tensor:
        """Return the number of pixels of each box, [n] float32."""
        width, height = self.convert("xywh").bbox[:, 2:].unbind(dim=1)
        return width * height

    def to(self, device: torch.device | str, **kwargs: Any) -> BoxList:
        """Return the boxes, and the fields that have ``to``, on another device."""
        fields = {
            name: value.to(device, **kwargs) if hasattr(value, "to") else value
            for name, value in self.extra_fields.items()
        }
        return self._with(self.bbox.to(device, **kwargs), fields=fields)

    def __getitem__(self, item: int | slice | Sequence[int] | Tensor) -> BoxList:
        """Select boxes with their fields, by integer, slice, list, or bool or long tensor."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"box {item} of {len(self)}")
            item = slice(item, item + 1 or None)
        fields = {name: value[item] for name, value in self.extra_fields.items()}
        return self._with(self.bbox[item], fields=fields)

    def __len__(self) -> int:
        return self.bbox.shape[0]

    def __iter__(self) -> Iterator[BoxList]:
        """Iterate over the boxes as BoxLists of one."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        width, height = self.size
        return f"BoxList(num_boxes={len(self)}, image_width={width}, image_height={height}, mode={self.mode})"

    def _with(
        self,
        bbox: Tensor,
        *,
        size: tuple[int, int] | None = None,
        mode: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> BoxList:
        """Return a BoxList with these boxes, and this one's size and mode where none are given."""
        result = BoxList(bbox, self.size if size is None else size, self.mode if mode is None else mode)
        result.extra_fields.update(fields or {})
        return result


def check_flip(method: int) -> None:
    """Raise ValueError unless ``method`` is one of the two flips."""
    if method not in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        raise ValueError(f"only FLIP_LEFT_RIGHT (0) and FLIP_TOP_BOTTOM (1) are known, not {method!r}")


def _check_mode(mode: str) -> None:
    """Raise ValueError unless ``mode`` is "xyxy" or "xywh"."""
    if mode not in ("xyxy", "xywh"):
        raise ValueError(f"mode must be 'xyxy' or 'xywh', not {mode!r}")


# As a pytree a BoxList passes through torch.compile and torch.export. Unflattening checks nothing, because there the
# leaves may be anything.
def _flatten(boxlist: BoxList) -> tuple[list[Any], Any]:
    context = [list(boxlist.size), boxlist.mode, list(boxlist.extra_fields)]
    return [boxlist.bbox, *boxlist.extra_fields.values()], context


def _flatten_with_keys(boxlist: BoxList) -> tuple[list[tuple[Any, Any]], Any]:
    leaves, context = _flatten(boxlist)
    return [(pytree.GetAttrKey(key), leaf) for key, leaf in zip(["bbox", *context[2]], leaves, strict=True)], context


def _unflatten(leaves: Any, context: Any) -> BoxList:
    size, mode, names = context
    boxlist = object.__new__(BoxList)
    boxlist.bbox, *values = leaves
    boxlist.size, boxlist.mode = tuple(size), mode
    boxlist.extra_fields = dict(zip(names, values, strict=True))
    return boxlist


pytree.register_pytree_node(
    BoxList,
    _flatten,
    _unflatten,
    serialized_type_name="maskrcnn_benchmark.structures.bounding_box.BoxList",
    flatten_with_keys_fn=_flatten_with_keys,
)
