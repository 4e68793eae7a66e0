"""The op library ``mrcnn``: schemas, plain PyTorch kernels, and the compiled extension that overrides them per device.

The schema of an op is defined in Python together with its reference, which is the kernel of every device for which the
extension has none. This is the only module that imports ``maskrcnn_benchmark._C``.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch

REBUILD = "python setup.py build_ext --inplace"


def _load_extension() -> tuple[str | None, str | None]:
    """Imports the compiled kernels once. Returns (path of the library or None, why it is missing or None)."""
    try:
        # Before any schema is defined: a library of other sources is then found by LIB.define, as an exception.
        module = importlib.import_module("maskrcnn_benchmark._C")
    except ImportError as error:
        reason = str(error)
    else:
        return module.__file__, None
    message = f"The compiled kernels (maskrcnn_benchmark._C) are not available: {reason}. Build them with `{REBUILD}`"
    if os.environ.get("MASKRCNN_REQUIRE_EXT", "0") == "1":
        raise ImportError(f"{message}, or unset MASKRCNN_REQUIRE_EXT.")
    warnings.warn(f"{message}; until then the slower plain PyTorch kernels are used.", RuntimeWarning, stacklevel=2)
    return None, reason


_EXTENSION_PATH, _MISSING_REASON = _load_extension()
_PLAIN_KERNELS: dict[str, Callable[..., Any]] = {}

LIB = torch.library.Library("mrcnn", "DEF")


def define_op(schema: str, reference: Callable[..., Any]) -> str:
    """Defines an op and registers its plain PyTorch kernel for all devices.

    Args:
        schema: name and signature as ``torch.library.Library.define`` reads them, for instance
            ``"nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"``.
        reference: kernel in plain PyTorch; compiled kernels take precedence on their device.

    Returns:
        The qualified name, ``"mrcnn::nms"``, as ``torch.library.register_fake`` and its kin take it.

    Raises:
        ImportError: the compiled kernel of this op has another signature (a stale build).
    """
    name = schema.partition("(")[0]
    try:
        LIB.define(schema)
    except RuntimeError as error:
        raise ImportError(
            f"{_EXTENSION_PATH} was built from other sources than this package (op {name!r}): build it again with "
            f"`{REBUILD}`"
        ) from error
    LIB.impl(name, reference, "CompositeExplicitAutograd")
    _PLAIN_KERNELS[name] = reference
    return f"mrcnn::{name}"


def plain_kernel(name: str) -> Callable[..., Any]:
    """The plain PyTorch kernel of an op, with the arguments of its schema; for comparisons in tests and benchmarks.

    Raises:
        KeyError: there is no such op.
    """
    if name not in _PLAIN_KERNELS:
        raise KeyError(f"no op is called {name!r}; there are {', '.join(sorted(_PLAIN_KERNELS))}")
    return _PLAIN_KERNELS[name]


def backend_info() -> dict[str, Any]:
    """Which kernels are live.

    Returns:
        ``extension``: path of the compiled library or None; ``missing_reason``: why there is none, or None;
        ``kernels``: for each op ``{"cpu": ..., "cuda": ...}`` with ``"compiled"`` or ``"plain"``.
    """
    kernels = {
        name: {
            device.lower(): "compiled"
            if torch._C._dispatch_has_kernel_for_dispatch_key(f"mrcnn::{name}", device)
            else "plain"
            for device in ("CPU", "CUDA")
        }
        for name in sorted(_PLAIN_KERNELS)
    }
    return {"extension": _EXTENSION_PATH, "missing_reason": _MISSING_REASON, "kernels": kernels}
