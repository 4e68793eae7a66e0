"""Two checkpoints, tensor by tensor, bit by bit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.files import read_weights

_FINAL = "model_final.pth"
_NUMBERED = re.compile(r"model_\d+\.pth")


@dataclass(frozen=True)
class CheckpointDifference:
    """What differs between two checkpoints of one name.

    Args:
        name: the file's.
        is_different: whether any bit of a tensor does, or which tensors there are.
        text: in a sentence; "" where they are equal.
    """

    name: str
    is_different: bool
    text: str


def compare_checkpoints(a: str, b: str) -> CheckpointDifference | None:
    """Compare the final checkpoints in two folders, or the last ones that both have; None: they have none in common.

    Weights, then the optimiser's state, then what else is saved of numbers, such as the iteration.

    Raises:
        ValueError: a checkpoint cannot be read.
    """
    common = set(os.listdir(a)) & set(os.listdir(b))
    numbered = sorted(name for name in common if _NUMBERED.fullmatch(name))
    if _FINAL not in common and not numbered:
        return None
    name = _FINAL if _FINAL in common else numbered[-1]
    first, second = (dict(_tensors(read_weights(os.path.join(folder, name)))) for folder in (a, b))
    lacking = sorted(first.keys() ^ second.keys())
    shared = [key for key in first if key in second]
    wrong = [key for key in shared if not same_bits(first[key], second[key])]
    if not lacking and not wrong:
        return CheckpointDifference(name, False, "")
    parts = [f"{len(wrong)} of {len(shared)} tensors of {name} differ"]
    if wrong:
        parts.append(f"the first is {wrong[0]}")
        comparable = [key for key in wrong if first[key].shape == second[key].shape]
        if comparable:
            distance, key = max((largest_difference(first[key], second[key]), key) for key in comparable)
            parts.append(f"the largest difference, {distance:.3g}, is in {key}")
    if lacking:
        parts.append(f"only one has {', '.join(lacking[:4])}")
    return CheckpointDifference(name, True, "; ".join(parts) + ".")


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits: -0 is not 0, and a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(torch.equal(_bytes(a), _bytes(b)))


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape; infinite where only one has a number."""
    distance = (a.double() - b.double()).abs()
    distance[a.isnan() & b.isnan()] = 0.0
    distance[a == b] = 0.0  # two infinities
    return float(distance.nan_to_num(nan=float("inf")).max())


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _tensors(data: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint, and its numbers as tensors, by dotted names; the weights by their own."""
    yield from _leaves(data.get("model", {}), "")
    for key in ("optimizer", "scheduler", "scaler", "iteration"):
        yield from _leaves(data.get(key, {}), key)


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, (int, float)):
        yield name, torch.tensor(tree, dtype=torch.float64)
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{name}.{index}")
