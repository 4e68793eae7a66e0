"""Read pickles of numpy arrays without giving them anything to call.

A pickle is a program. This reader hands it stand-ins of its own for the few globals that arrays and plain containers
need, and refuses every other; neither numpy's nor any other library's code sees what the file says about an array
before it was checked. What the program takes is counted before it runs (`pickle_program`) and while it does.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from maskrcnn_benchmark.checkpoint.pickle_program import RefusedError, check_program

# Pickled by Python 2 and 3 (protocols 0 to 5) and by numpy before and after 2.0.
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTIN_MODULES = ("__builtin__", "builtins")
_DTYPE = re.compile(r"[<>=|]?[biuf](1|2|4|8)")
_MAX_DIMENSIONS = 16
_LARGEST_SIZE = 1 << 48  # along one dimension
# What decoded texts, arrays and copied dicts may take together, for each byte of the file, and for any file. An honest
# file has every byte decoded once and copied once; a dishonest one has the same bytes decoded over and over again.
_MOST_PER_BYTE = 4
_MOST_ANYWAY = 1 << 20
_BYTES_OF_AN_ITEM = 32  # of a dict; in the file it takes a quarter of that at least
_LONGEST_QUOTE = 60  # characters of the file in a message


class _Budget:
    """The bytes that a file may still have made of it."""

    def __init__(self, file_size: int) -> None:
        self.left = _MOST_PER_BYTE * file_size + _MOST_ANYWAY

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise RefusedError("it asks for many times the memory of its own size")


class _StandIn:
    """What the pickle gets instead of a function: callable, without attributes to set and without a class to make."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("it sets the state of a function")


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
            raise RefusedError(f"it holds an array of dtype {_quote(code)}, which is no plain number")
        self.code = code.lstrip("<>=|")

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise RefusedError("it describes a dtype in an unknown way")
        self.code = f"{order}{self.code.lstrip('<>=|')}"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code)


class _Array:
    """An array, empty until its state arrives."""

    __slots__ = ("budget", "value")

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self.value = np.empty(0, np.float32)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it describes an array in an unknown way")
        _, shape, dtype, fortran, data = state
        self.value = _array(self.budget, data, dtype, shape, "F" if fortran else "C")


def _array(budget: _Budget, data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    """The array with these bytes; a copy, so that it can be written to."""
    if not isinstance(data, (bytes, bytearray, str)):
        raise RefusedError(f"it holds an array made of a {type(data).__name__}")
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError("it describes an array in an unknown way")
    if not all(type(size) is int and 0 <= size <= _LARGEST_SIZE for size in shape) or order not in ("C", "F"):
        raise RefusedError(f"it holds an array of shape {_quote(shape)}")
    kind = dtype.numpy()
    if math.prod(shape) * kind.itemsize != len(data):
        raise RefusedError(f"an array of shape {shape} has {len(data)} bytes")
    budget.spend(len(data))
    if isinstance(data, str):  # the bytes of a Python 2 string, read as latin-1
        data = data.encode("latin-1")
    native = np.frombuffer(data, kind).astype(kind.newbyteorder("="))
    return native.reshape(shape, order="F" if order == "F" else "C")


class _Reader(pickle.Unpickler):
    """An unpickler whose only globals are stand-ins.

    Args:
        file: the pickle.
        budget: what it may take.
    """

    def __init__(self, file: Any, budget: _Budget) -> None:
        super().__init__(file, encoding="latin1")
        self.budget = budget
        reconstruct, scalar, from_buffer = map(_StandIn, (self._reconstruct, self._scalar, self._from_buffer))
        self.allowed: dict[tuple[str, str], object] = {
            **{(module, "_reconstruct"): reconstruct for module in _ARRAY_MODULES},
            **{(module, "scalar"): scalar for module in _ARRAY_MODULES},
            **{(module, "_frombuffer"): from_buffer for module in _BUFFER_MODULES},
            **{(module, "bytes"): _StandIn(_empty_bytes) for module in _BUILTIN_MODULES},
            ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
            ("numpy", "dtype"): _StandIn(_DType),
            ("_codecs", "encode"): _StandIn(self._encode),
            ("collections", "OrderedDict"): _StandIn(self._ordered_dict),
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            asked = f"{module}.{name}"
            raise RefusedError(f"it asks for {asked if asked.isprintable() and len(asked) < 200 else _quote(asked)}")
        return self.allowed[module, name]

    def _reconstruct(self, *args: object) -> _Array:
        return _Array(self.budget)

    def _scalar(self, dtype: object, data: object = b"") -> Any:
        return _array(self.budget, data, dtype, (), "C").item()

    def _from_buffer(self, data: object, dtype: object, shape: object, order: object = "C") -> _Array:
        array = _Array(self.budget)
        array.value = _array(self.budget, data, dtype, shape, order)
        return array

    def _encode(self, text: object, codec: object = None) -> bytes:
        if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
            raise RefusedError(f"it encodes something as {_quote(codec)}")
        self.budget.spend(len(text))
        return text.encode("latin-1")

    def _ordered_dict(self, *args: Any) -> _OrderedDict:
        self.budget.spend(_BYTES_OF_AN_ITEM * sum(len(each) for each in args))
        return _OrderedDict(*args)


def _empty_bytes(*args: object) -> bytes:
    if args:
        raise RefusedError("it calls bytes with arguments")
    return b""


def read_arrays(path: str) -> dict[str, Any]:
    """Read a pickled dict of arrays and plain values, such as Caffe2's and detectron2's .pkl files.

    Args:
        path: a pickle of any protocol; strings of Python 2 are read as latin-1.

    Returns:
        The dict; arrays inside it, at its top or one level below, are ``numpy.ndarray`` in the machine's byte order.

    Raises:
        ValueError: the file is truncated, no pickle of a dict, or asks for anything but numeric arrays and plain
            containers, or for far more memory than it has bytes; nothing that it asks for was run.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            check_program(file, size)
            file.seek(0)
            data = _Reader(file, _Budget(size)).load()
    except RefusedError as error:
        raise ValueError(
            f"{path} is refused: {error}, and a weights file may hold numeric arrays and plain containers only"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can fail in every way
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"{path} is truncated or no pickled weights ({reason})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, not a dict of weights")
    return {_text(key): _plain(value) for key, value in data.items()}


def _quote(value: object) -> str:
    """A value of the file for a message: short, and without looking into what may be deep or endless."""
    if isinstance(value, (str, int, float)):
        return repr(value[:_LONGEST_QUOTE] if isinstance(value, str) else value)
    if isinstance(value, tuple) and len(value) <= _MAX_DIMENSIONS and all(type(item) is int for item in value):
        return repr(value)
    return f"a {type(value).__name__}"


def _plain(value: object) -> object:
    """A value of the top level: stand-ins become arrays, in a dict below it too."""
    if isinstance(value, dict):
        return {_text(key): _unwrap(item) for key, item in value.items()}
    return _unwrap(value)


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, _Array) else value


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
