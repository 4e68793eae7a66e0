"""Read pickles of numpy arrays without giving them anything to call.

A pickle is a program. This reader hands it stand-ins of its own for the few globals that arrays and plain containers
need, and refuses every other; neither numpy's nor any other library's code sees what the file says about an array
before it was checked.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np

# Pickled by Python 2 and 3 (protocols 0 to 5) and by numpy before and after 2.0.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTIN_MODULES = ("__builtin__", "builtins")
_DTYPE = re.compile(r"[<>=|]?[biuf](1|2|4|8)")
# The registry of extension codes hands out objects that were never asked for by name; out-of-band buffers are not in
# the file.
_REFUSED_OPCODES = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"})
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
# Bytes that hold the length of a string.
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_MAX_DIMENSIONS = 16


class _RefusedError(Exception):
    """The pickle holds something else than arrays and plain containers."""


class _StandIn:
    """What the pickle gets instead of a function: callable, without attributes to set and without a class to make."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise _RefusedError("it sets the state of a function")


class _OrderedDict(dict):  # type: ignore[type-arg]
    """An ordinary dict that ignores attributes, such as the ``_metadata`` of a state dict."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _DType:
    """A numeric dtype, as the arguments of ``numpy.dtype`` and the state that follows them describe it."""

    __slots__ = ("code",)

    def __init__(self, code: object, *flags: object) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise _RefusedError(f"it holds an array of dtype {code!r}, which is no plain number")
        self.code = code.lstrip("<>=|")

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise _RefusedError("it describes a dtype in an unknown way")
        self.code = f"{order}{self.code.lstrip('<>=|')}"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code)


class _Array:
    """An array, empty until its state arrives."""

    __slots__ = ("value",)

    def __init__(self, *args: object) -> None:
        self.value = np.empty(0, np.float32)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it describes an array in an unknown way")
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    """The array with these bytes; a copy, so that it can be written to."""
    if isinstance(data, str):  # the bytes of a Python 2 string, read as latin-1
        data = data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)):
        raise _RefusedError(f"it holds an array made of a {type(data).__name__}")
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise _RefusedError("it describes an array in an unknown way")
    if not all(type(size) is int and size >= 0 for size in shape) or order not in ("C", "F"):
        raise _RefusedError(f"it holds an array of shape {shape!r}")
    kind = dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(data):
        raise _RefusedError(f"an array of shape {shape} has {len(data)} bytes")
    native = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
    return native.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: object, data: object = b"") -> Any:
    return _array(data, dtype, (), "C").item()


def _from_buffer(data: object, dtype: object, shape: object, order: object = "C") -> _Array:
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _encode(text: object, codec: object = None) -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise _RefusedError(f"it encodes something as {codec!r}")
    return text.encode("latin-1")


def _empty_bytes(*args: object) -> bytes:
    if args:
        raise _RefusedError("it calls bytes with arguments")
    return b""


def _ordered_dict(*args: object) -> _OrderedDict:
    return _OrderedDict(*args)  # type: ignore[arg-type]


_ALLOWED: dict[tuple[str, str], object] = {
    **{(module, "_reconstruct"): _StandIn(_Array) for module in _ARRAY_MODULES},
    **{(module, "scalar"): _StandIn(_scalar) for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): _StandIn(_from_buffer) for module in _BUFFER_MODULES},
    **{(module, "bytes"): _StandIn(_empty_bytes) for module in _BUILTIN_MODULES},
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _StandIn(_DType),
    ("_codecs", "encode"): _StandIn(_encode),
    ("collections", "OrderedDict"): _StandIn(_ordered_dict),
}


class _Reader(pickle.Unpickler):
    """An unpickler whose only globals are the stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            asked = f"{module}.{name}"
            raise _RefusedError(f"it asks for {asked if asked.isprintable() else repr(asked)}")
        return _ALLOWED[module, name]


def read_arrays(path: str) -> dict[str, Any]:
    """Read a pickled dict of arrays and plain values, such as Caffe2's and detectron2's .pkl files.

    Args:
        path: a pickle of any protocol; strings of Python 2 are read as latin-1.

    Returns:
        The dict; arrays inside it, at its top or one level below, are ``numpy.ndarray`` in the machine's byte order.

    Raises:
        ValueError: the file is truncated, no pickle of a dict, or asks for anything but numeric arrays and plain
            containers; nothing that it asks for was run.
    """
    try:
        with open(path, "rb") as file:
            _check_opcodes(file)
            file.seek(0)
            data = _Reader(file, encoding="latin1").load()
    except _RefusedError as error:
        raise ValueError(
            f"{path} is refused: {error}, and a weights file may hold numeric arrays and plain containers only"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in every way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is truncated or no pickled weights ({reason})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, not a dict of weights")
    return {_text(key): _plain(value) for key, value in data.items()}


def _check_opcodes(file: IO[bytes]) -> None:
    """Read the program without running it: no opcode beyond the reader's control, no memo larger than the program."""
    for count in itertools.count(1):
        code = file.read(1)
        opcode = pickletools.code2op.get(code.decode("latin-1"))
        if opcode is None:
            raise EOFError(f"unknown opcode {code!r}" if code else "it ends early")
        if opcode.name in _REFUSED_OPCODES:
            raise _RefusedError(f"it uses the opcode {opcode.name}")
        argument = _read_argument(file, opcode)
        # Writers number what they remember; a wild number would make the reader allocate that many slots.
        if opcode.name in _MEMO_OPCODES:
            number = int(argument) if opcode.name == "PUT" else int.from_bytes(argument, "little")
            if number > count:
                raise _RefusedError(f"it remembers an object under the number {number}")
        if opcode.name == "STOP":
            return


def _read_argument(file: IO[bytes], opcode: pickletools.OpcodeInfo) -> bytes:
    """The bytes of an opcode's argument; those of strings are skipped."""
    size = opcode.arg.n if opcode.arg is not None else 0
    if size >= 0:
        return file.read(size)
    if size == pickletools.UP_TO_NEWLINE:
        if opcode.name in ("GLOBAL", "INST"):  # module and name
            file.readline()
        return file.readline()
    end = int.from_bytes(file.read(_LENGTH_BYTES[size]), "little") + file.tell()
    if end > os.fstat(file.fileno()).st_size:
        raise EOFError("it ends early")
    file.seek(end)
    return b""


def _plain(value: object) -> object:
    """A value of the top level: stand-ins become arrays, in a dict below it too."""
    if isinstance(value, dict):
        return {_text(key): _unwrap(item) for key, item in value.items()}
    return _unwrap(value)


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, _Array) else value


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
