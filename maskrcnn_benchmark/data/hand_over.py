"""How batches travel from a worker to the training process: pixels in shared memory, everything else in the message.

By default each tensor gets shared memory of its own, into which the worker copies it and whose handle the training
process fetches through a socket: for the handful of small ones that describe the objects this costs more than to decode
an image. Importing this module changes that for `ImageList`, `Targets` and `PackedPolygons`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.targets import Targets


def empty_pixels(shape: tuple[int, ...]) -> Tensor:
    """Memory for a batch of pixels, uint8; in a worker it is shared, so that handing it over copies nothing."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(int(np.prod(shape)))  # what torch's own collation takes
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def _to_array(value: Any) -> Any:
    """A tensor of the host as an array, which is pickled by value; anything else as it is."""
    return value.numpy() if isinstance(value, Tensor) and value.device.type == "cpu" else value


def _build(kind: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    return kind(*(torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values))


def _reduce(kind: type, names: tuple[str, ...], item: Any) -> tuple[Any, ...]:
    return _build, (kind, tuple(_to_array(getattr(item, name)) for name in names))


def _reduce_images(images: ImageList) -> tuple[Any, ...]:
    return _build, (ImageList, (images.tensors, images.image_sizes, _to_array(images.sizes)))


ForkingPickler.register(ImageList, _reduce_images)
for _kind, _names in (
    (Targets, ("boxes", "labels", "polygons", "image_sizes", "keypoints")),
    (PackedPolygons, ("coords", "ring_offsets", "instance_offsets")),
):
    ForkingPickler.register(_kind, partial(_reduce, _kind, _names))
