"""Small helpers under their published names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate, without a copy when there is a single tensor."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)


def build_entry(entry: Any, cfg: Any, *args: Any) -> Any:
    """Build a registry entry: by its `from_config`, or, for third-party entries, by calling it with (cfg, *args)."""
    return entry.from_config(cfg, *args) if hasattr(entry, "from_config") else entry(cfg, *args)
