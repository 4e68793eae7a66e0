"""Digests of tensors and files: two that are equal stand for the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_BLOCK = 1 << 20


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over name, type, shape and bytes of each tensor, in the order of the names.

    Neither the device nor the layout in memory (channels first or last) counts. Waits for the device.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_file(path: str | Path) -> str:
    """sha256 of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
