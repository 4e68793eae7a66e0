"""Layout of a dense head's outputs."""

from __future__ import annotations

from torch import Tensor


def flatten_map(x: Tensor, columns: int) -> Tensor:
    """[N, A * columns, H, W] -> [N, H * W * A, columns], the order of the anchors; no copy of a channels_last map."""
    n = x.shape[0]
    return x.permute(0, 2, 3, 1).reshape(n, -1, columns)
