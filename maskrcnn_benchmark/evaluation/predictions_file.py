"""predictions.pth written image by image, so that the masks of a whole data set need not be in memory.

The file is the one that `torch.save` writes of a dict of dicts of tensors: a zip of stored, not compressed, records,
one a tensor, and the pickle of the dict, in which tensors refer to records. `torch.load(weights_only=True)` reads it.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ROOT = "archive"
_ALIGNMENT = 64  # bytes at which records begin, as torch's own writer has it
_PADDING_ID = 0x4246  # of the zip field that fills up to there
_LOCAL_HEADER = 30  # bytes of a zip record before its name
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal predictions make equal files


class PredictionsWriter:
    """Writes predictions under a temporary name; `close` gives them theirs.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = self.path.with_name(self.path.name + ".tmp")
        self._file = open(self._scratch, "wb")  # noqa: SIM115  (open until close)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._content: dict[int, dict[str, Any]] = {}
        self._num_records = 0

    def add(self, index: int, entry: Mapping[str, Any]) -> None:
        """Write what is known of one image: tensors go to the file now, other values with the dict at the end."""
        self._content[index] = {
            name: self._write_tensor(value) if isinstance(value, Tensor) else value for name, value in entry.items()
        }

    def close(self) -> None:
        """Write the dict and give the file its name."""
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=2).dump(self._content)
        self._write("data.pkl", buffer.getvalue())
        self._write("byteorder", sys.byteorder.encode())
        self._write("version", b"3\n")
        self._zip.close()
        self._file.close()
        self._scratch.replace(self.path)

    def discard(self) -> None:
        """Leave no file."""
        with contextlib.suppress(OSError):
            self._zip.close()
        self._file.close()
        self._scratch.unlink(missing_ok=True)

    def _write_tensor(self, tensor: Tensor) -> _Reference:
        tensor = tensor.detach().cpu().contiguous()
        key = str(self._num_records)
        self._num_records += 1
        self._write(f"data/{key}", tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
        return _Reference(key, tensor.dtype, tuple(tensor.shape), tensor.stride())

    def _write(self, name: str, content: bytes) -> None:
        info = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
        begin = self._file.tell() + _LOCAL_HEADER + len(info.filename) + 4
        padding = -begin % _ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_ID, padding) + b"Z" * padding
        self._zip.writestr(info, content)


class _Reference:
    """Stands in the dict for a tensor that is in the file."""

    def __init__(self, key: str, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage = _Storage(key, dtype, math.prod(shape))
        self.shape = shape
        self.stride = stride

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.storage, 0, self.shape, self.stride, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Storage:
    def __init__(self, key: str, dtype: torch.dtype, size: int) -> None:
        self.key = key
        self.dtype = dtype
        self.size = size


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Of a storage what torch.load looks for: kind, key, device, number of elements."""
        if not isinstance(value, _Storage):
            return None
        kind = torch.storage._dtype_to_storage_type_map()[value.dtype]
        return ("storage", getattr(torch, kind), value.key, "cpu", value.size)
