"""Training targets of the mask head from packed polygons.

V vertices, Q rings, I instances, P boxes, M the side of a target.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape, check_value
from maskrcnn_benchmark.ops._library import LIB, define_op

# Vertices farther away, in pixels of the target, are pulled in to this; NaN goes to its negative.
_FAR = 800000


def polygon_mask_targets(
    coords: Tensor,  # [V, 2]
    ring_offsets: Tensor,  # [Q + 1] int64, counts vertices
    instance_offsets: Tensor,  # [I + 1] int64, counts rings
    instance_indices: Tensor,  # [P] int64
    boxes: Tensor,  # [P, 4] xyxy
    *,
    resolution: int,
) -> Tensor:
    """Crops the polygons of an instance to a box, scales them to M x M and fills them.

    The result equals, bit for bit, pycocotools' decode(merge(frPyObjects(rings, M, M))) of the rings moved by
    (-x1, -y1) and multiplied by M / max(x2 - x1, 1) and M / max(y2 - y1, 1) in float32. Each ring is filled by parity;
    an instance is the union of its rings. Vertices more than 800000 target pixels away are pulled in to that distance.

    Args:
        coords: [V, 2] vertices (x, y) in pixels of the image, computed in float32.
        ring_offsets: [Q + 1] int64, ring q holds the vertices ring_offsets[q] to ring_offsets[q + 1].
        instance_offsets: [I + 1] int64, instance i holds the rings instance_offsets[i] to instance_offsets[i + 1].
        instance_indices: [P] int64, the instance of each box; a negative one gives an empty mask.
        boxes: [P, 4] (x1, y1, x2, y2) in pixels.
        resolution: M.

    Returns:
        [P, M, M] float32 of 0 and 1. It carries no gradient.

    Raises:
        ValueError: on shapes that do not fit, or offsets or indices out of range. On CUDA a look at these would make
            the host wait: there they give a target of NaN instead.
        TypeError: on offsets or indices that are not int64.
    """
    return torch.ops.mrcnn.polygon_mask_targets(
        coords.detach().float(), ring_offsets, instance_offsets, instance_indices, boxes.detach().float(), resolution
    )


def _check(
    coords: Tensor,
    ring_offsets: Tensor,
    instance_offsets: Tensor,
    instance_indices: Tensor,
    boxes: Tensor,
    resolution: int,
) -> None:
    op = "polygon_mask_targets"
    check_shape(coords, op, "coords", ("V", 2))
    check_shape(instance_indices, op, "instance_indices", ("P",))
    check_shape(boxes, op, "boxes", (instance_indices.shape[0], 4))
    check_dtype(coords, op, "coords", (torch.float32,))
    check_dtype(boxes, op, "boxes", (torch.float32,))
    check_dtype(instance_indices, op, "instance_indices", (torch.int64,))
    for name, offsets in (("ring_offsets", ring_offsets), ("instance_offsets", instance_offsets)):
        check_dtype(offsets, op, name, (torch.int64,))
        check_value(
            offsets.dim() == 1 and offsets.shape[0] >= 1,
            op,
            f"{name} must be a vector that starts with 0, got the shape {list(offsets.shape)}",
        )
    check_same_device(
        op,
        coords=coords,
        ring_offsets=ring_offsets,
        instance_offsets=instance_offsets,
        instance_indices=instance_indices,
        boxes=boxes,
    )
    check_value(resolution >= 1, op, f"resolution must be at least 1, got {resolution}")


def _check_offsets(name: str, offsets: list[int], length: int) -> None:
    ascending = all(first <= second for first, second in pairwise(offsets))
    check_value(
        offsets[0] == 0 and offsets[-1] <= length and ascending,
        "polygon_mask_targets",
        f"{name} must ascend from 0 to at most {length}",
    )


def _project(ring: np.ndarray, corner: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Vertices [n, 2] of a ring in pixels of the target."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num((ring - corner) * scale, nan=-_FAR, posinf=_FAR, neginf=-_FAR).clip(-_FAR, _FAR)


def _fill(rings: list[np.ndarray], resolution: int) -> np.ndarray:
    """Union of the filled rings, [M, M] uint8."""
    # A ring of one or two vertices encloses nothing, and pycocotools would take its four numbers for a box.
    encoded = [
        coco_mask.frPyObjects([ring.ravel().tolist()], resolution, resolution)[0] for ring in rings if len(ring) > 2
    ]
    if not encoded:
        return np.zeros((resolution, resolution), dtype=np.uint8)
    return coco_mask.decode(coco_mask.merge(encoded))


def _polygon_mask_targets_plain(
    coords: Tensor,
    ring_offsets: Tensor,
    instance_offsets: Tensor,
    instance_indices: Tensor,
    boxes: Tensor,
    resolution: int,
) -> Tensor:
    _check(coords, ring_offsets, instance_offsets, instance_indices, boxes, resolution)
    ring_starts, instance_starts = ring_offsets.tolist(), instance_offsets.tolist()
    _check_offsets("ring_offsets", ring_starts, coords.shape[0])
    _check_offsets("instance_offsets", instance_starts, len(ring_starts) - 1)
    vertices = coords.cpu().numpy()
    # A quotient of tensors: a number divided by a tensor is rounded twice. The products below stay in float32.
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    scales = (torch.full_like(sides, resolution) / sides).cpu().numpy()
    corners = boxes[:, :2].cpu().numpy()
    targets = np.zeros((len(boxes), resolution, resolution), dtype=np.float32)
    for position, instance in enumerate(instance_indices.tolist()):
        check_value(
            instance < len(instance_starts) - 1,
            "polygon_mask_targets",
            f"instance index {instance} is out of range for {len(instance_starts) - 1} instances",
        )
        if instance < 0:
            continue
        rings = [
            _project(vertices[ring_starts[ring] : ring_starts[ring + 1]], corners[position], scales[position])
            for ring in range(instance_starts[instance], instance_starts[instance + 1])
        ]
        targets[position] = _fill(rings, resolution)
    return torch.from_numpy(targets).to(boxes.device)


_POLYGON_MASK_TARGETS = define_op(
    "polygon_mask_targets(Tensor coords, Tensor ring_offsets, Tensor instance_offsets, Tensor instance_indices, "
    "Tensor boxes, SymInt resolution) -> Tensor",
    _polygon_mask_targets_plain,
)


@torch.library.register_fake(_POLYGON_MASK_TARGETS, lib=LIB)
def _polygon_mask_targets_fake(
    coords: Tensor,
    ring_offsets: Tensor,
    instance_offsets: Tensor,
    instance_indices: Tensor,
    boxes: Tensor,
    resolution: int,
) -> Tensor:
    _check(coords, ring_offsets, instance_offsets, instance_indices, boxes, resolution)
    return boxes.new_empty((boxes.shape[0], resolution, resolution))
