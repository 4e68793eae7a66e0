"""What a file of torch.save may ask of the machine that reads it, looked at before and after it is read.

``torch.load(weights_only=True)`` runs no code of a file. It does believe a file about how large things are.
"""

from __future__ import annotations

import os
import zipfile
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.pickle_program import RefusedError, check_program

_ZIP = b"PK\x03\x04"
# Before it wrote zip files torch.save wrote pickles of a magic number, a version, the machine, the data, and the keys
# of the storages, and then these.
_LEGACY_PICKLES = 5
# Tensors may share memory, as layers do that share weights; so many times the bytes that the file has, and any file
# some.
_MOST_SHARED = 8
_SHARED_ANYWAY = 1 << 26


def check_torch_file(path: str) -> None:
    """Look at the parts of a file before it is read.

    Raises:
        ValueError: it is compressed (torch.save compresses nothing), holds the code of TorchScript, or its pickle has
            too many or too deeply nested instructions; the message names the file.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(_ZIP)) == _ZIP:
                _check_zip(path, size)
                return
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                check_program(file, size)
    except RefusedError as error:
        raise ValueError(
            f"{path} is refused: {error}, and a checkpoint may hold tensors and plain values only"
        ) from error
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path} is truncated or no checkpoint of plain tensors ({error})") from error


def _check_zip(path: str, size: int) -> None:
    try:
        _check_entries(path, size)
    except RefusedError:
        raise
    except Exception as error:  # a damaged archive can fail in every way
        raise EOFError(str(error)) from error


def _check_entries(path: str, size: int) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if any(name.endswith("/constants.pkl") for name in names):
            raise RefusedError("it is a program of TorchScript")
        if len(set(names)) < len(names):
            raise RefusedError("it holds two entries of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise RefusedError("it is compressed")
        if sum(entry.file_size for entry in entries) > size:
            raise RefusedError(f"its entries claim {sum(entry.file_size for entry in entries)} bytes of its {size}")
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                with archive.open(entry) as program:
                    check_program(program, entry.file_size)


def check_tensors(data: Any, path: str) -> None:
    """Look at what was read from a file: plain tensors on the CPU, none larger than its own bytes.

    Args:
        data: containers of tensors and plain values.
        path: of the file, for messages.

    Raises:
        ValueError: a tensor is of another kind, or a view of fewer numbers than it claims; together they would take
            many times the size of the file.
    """
    limit = _MOST_SHARED * os.path.getsize(path) + _SHARED_ANYWAY
    waiting: list[tuple[str, Any]] = [("", data)]
    seen, total = set(), 0
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, (dict, list, tuple)):
            if id(value) not in seen:
                seen.add(id(value))
                items = value.items() if isinstance(value, dict) else enumerate(value)
                waiting.extend((str(key)[:200] if isinstance(key, (str, int)) else name, item) for key, item in items)
        elif isinstance(value, Tensor):
            fault = _fault_of(value)
            if fault:
                raise ValueError(f"{path} is refused: its tensor {name!r} {fault}")
            total += value.numel() * value.element_size()
            if total > limit:
                raise ValueError(f"{path} is refused: its tensors take many times the memory of its own size")


def _fault_of(tensor: Tensor) -> str:
    """Why a tensor cannot be a weight; "" where nothing speaks against it."""
    is_plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    if type(tensor) not in (Tensor, torch.nn.Parameter) or not is_plain:
        return "is sparse, quantized or of another special kind; save plain tensors"
    if tensor.device.type != "cpu":
        return f"has no values (it was saved from the device {tensor.device.type!r})"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "claims more numbers than the file has for it"
    return ""
