"""How batches travel from a worker to the training process: two blocks of shared memory, one of pixels, one of objects.

By default each tensor gets shared memory of its own, into which the worker copies it and whose handle the training
process fetches through a socket: for the handful of small ones that describe the objects this costs more than to decode
an image. Importing this module changes that for `ImageList` and `Targets`.
"""

from __future__ import annotations

import math
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.targets import Targets

_ALIGNMENT = 64  # bytes
# dtype, first byte and shape of a tensor in a block; None stands for a tensor that is not there
_Place = tuple[torch.dtype, int, tuple[int, ...]] | None


def empty_pixels(num_images: int, height: int, width: int) -> tuple[np.ndarray, Tensor]:
    """Memory for a batch of pixels; in a worker it is shared, so that handing it over copies nothing.

    Returns:
        The same memory twice: uint8 [N, H, W, 3], and as tensor [N, 3, H, W] in channels_last order.
    """
    shape = (num_images, height, width, 3)
    if get_worker_info() is None:
        array = np.empty(shape, dtype=np.uint8)  # not aligned, so malloc finds the block it freed before
        return array, torch.from_numpy(array.transpose(0, 3, 1, 2))
    block = _shared(math.prod(shape)).view(shape)
    return block.numpy(), block.permute(0, 3, 1, 2)


def _shared(num_bytes: int) -> Tensor:
    """New memory that another process can map, uint8 [num_bytes]; torch's own collation takes it from the same call."""
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(num_bytes))


def _join(tensors: list[Tensor | None]) -> tuple[Tensor, list[_Place]]:
    """Copies tensors of the host into one shared block; where each of them is in it."""
    places: list[_Place] = []
    end = 0
    for tensor in tensors:
        places.append(None if tensor is None else (tensor.dtype, end, tuple(tensor.shape)))
        end += 0 if tensor is None else -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = _shared(max(end, _ALIGNMENT))
    for tensor, view in zip(tensors, _views(block, places), strict=True):
        if tensor is not None:
            view.copy_(tensor)
    return block, places


def _views(block: Tensor, places: list[_Place]) -> list[Tensor | None]:
    """The tensors of `_join`, as parts of its block."""
    views: list[Tensor | None] = []
    for place in places:
        if place is None:
            views.append(None)
            continue
        dtype, begin, shape = place
        views.append(block[begin : begin + math.prod(shape) * dtype.itemsize].view(dtype).view(shape))
    return views


def _reduce_targets(targets: Targets) -> Any:
    polygons = targets.polygons
    vectors = (
        [polygons.coords, polygons.ring_offsets, polygons.instance_offsets] if polygons is not None else [None] * 3
    )
    tensors = [targets.boxes, targets.labels, targets.keypoints, *vectors]
    if any(tensor is not None and tensor.device.type != "cpu" for tensor in tensors):
        return targets.__reduce_ex__(2)
    return _build_targets, (*_join(tensors), targets.image_sizes)


def _build_targets(block: Tensor, places: list[_Place], image_sizes: list[tuple[int, int]]) -> Targets:
    boxes, labels, keypoints, *vectors = _views(block, places)
    polygons = PackedPolygons(*vectors) if vectors[0] is not None else None
    return Targets(boxes, labels, polygons, image_sizes, keypoints)


def _reduce_images(images: ImageList) -> Any:
    # The sizes of a batch on the host are made anew.
    sizes = None if images.sizes.device.type == "cpu" else images.sizes
    return ImageList, (images.tensors, images.image_sizes, sizes)


ForkingPickler.register(Targets, _reduce_targets)
ForkingPickler.register(ImageList, _reduce_images)
