"""Checks of op arguments, shared by the plain kernels and the fake ones; the host files in csrc/ repeat their text.

They look at shapes, dtypes and devices only, never at values, so that they cost no synchronisation and run on fakes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_value(condition: bool, op: str, message: str) -> None:
    """Raises ValueError("op: message") unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{op}: {message}")


def check_dtype(tensor: Tensor, op: str, name: str, allowed: Sequence[torch.dtype]) -> None:
    """Raises TypeError unless the dtype of ``tensor`` is one of ``allowed``."""
    if tensor.dtype not in allowed:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise TypeError(f"{op}: {name} must be {names}, got {str(tensor.dtype).removeprefix('torch.')}")


def check_shape(tensor: Tensor, op: str, name: str, shape: Sequence[int | str]) -> None:
    """Raises ValueError unless ``tensor`` has the rank of ``shape`` and its integer sizes; letters fit any size."""
    fits = tensor.dim() == len(shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted_text = ", ".join(str(wanted) for wanted in shape)
        raise ValueError(f"{op}: {name} must have the shape [{wanted_text}], got {list(tensor.shape)}")


def check_same_device(op: str, **tensors: Tensor) -> None:
    """Raises ValueError unless all ``tensors`` lie on one device."""
    if len({tensor.device for tensor in tensors.values()}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in tensors.items())
        raise ValueError(f"{op}: all tensors must lie on one device, got {places}")


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of coordinates and sums that goes with features of ``dtype``: float64 for itself, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """channels_last if ``tensor`` [N, C, H, W] is laid out so and in no other way, else the contiguous format."""
    if not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def check_batch_indices(op: str, rois: Tensor, num_images: int) -> None:
    """Raises ValueError if a roi names an image that is not there. Looks at values, hence on the CPU only.

    On other devices it would cost a synchronisation; there the indexing itself fails.
    """
    if rois.device.type == "cpu" and bool((rois[:, 0] >= num_images).any()):
        worst = int((rois[:, 0] >= num_images).nonzero()[0])
        raise ValueError(
            f"{op}: roi {worst} belongs to image {rois[worst, 0].item():g}, but the features hold {num_images}"
        )
