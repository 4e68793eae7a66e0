"""PyTorch's optimisers without PyTorch's compiler."""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch

_Kind = TypeVar("_Kind", bound=type[torch.optim.Optimizer])


def without_compiler(kind: _Kind) -> _Kind:
    """Let a subclass of an optimiser of PyTorch, the same to the bit, not import ``torch._dynamo``.

    PyTorch wraps some methods of its optimisers to keep ``torch.compile`` out of them, and the wrappers import the
    compiler: that takes as long as importing torch itself, and 70 MiB of every process. Here the methods are called as
    they were written before that.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        setattr(kind, name, inspect.unwrap(getattr(kind, name)))
    kind.step = torch.no_grad()(inspect.unwrap(kind.step))  # type: ignore[method-assign]
    return kind


@without_compiler
class EagerSGD(torch.optim.SGD):
    """``torch.optim.SGD``; see `without_compiler`."""


@without_compiler
class EagerAdam(torch.optim.Adam):
    """``torch.optim.Adam``; see `without_compiler`."""


@without_compiler
class EagerAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW``; see `without_compiler`."""
