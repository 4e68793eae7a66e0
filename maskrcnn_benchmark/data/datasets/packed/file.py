"""Packed annotations in a file that processes map into memory.

The file is: magic word, length of the header, CRC-32 of the header, header, arrays. The header holds format and key,
and of each array type and shape; the arrays follow in that order, each at a multiple of 64 bytes. The header also holds
the CRC-32 of all that follows it, so the header's own stands for the whole file.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations, PackedCoords, PackedStrings
from maskrcnn_benchmark.data.datasets.packed.checks import check_arrays, check_table

# Raise it whenever an array changes its meaning.
FORMAT_VERSION = 3
PART_SUFFIX = ".part"  # of a file that is being written
_MAGIC = b"MRCNNPAK"
_PREFIX = struct.Struct("<8sQI")
_ALIGNMENT = 64
_LONGEST_HEADER = 1 << 20
_READ = 1 << 20  # bytes at a time

_HEADER = {"format", "key", "arrays", "checksum"}
_GROUPS = {"PackedStrings": PackedStrings, "PackedCoords": PackedCoords}


def save_packed(packed: PackedAnnotations, path: Path, *, key: str = "") -> None:
    """Write the arrays to ``path`` in one step: a reader sees the whole file or none.

    Args:
        packed: the arrays.
        path: of the file.
        key: what the arrays were made of; see `load_packed`.

    Raises:
        OSError: when the folder cannot be written, or the disk is full; nothing is left behind.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in packed.arrays()}
    checksum = 0
    for block in _blocks(arrays):
        checksum = zlib.crc32(block, checksum)
    table = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
    header = orjson.dumps({"format": FORMAT_VERSION, "key": key, "arrays": table, "checksum": checksum})
    header += b" " * (-(_PREFIX.size + len(header)) % _ALIGNMENT)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_PREFIX.pack(_MAGIC, len(header), zlib.crc32(header)) + header)
            for block in _blocks(arrays):
                file.write(block)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _blocks(arrays: dict[str, np.ndarray]) -> Iterator[memoryview | bytes]:
    """The bytes of all arrays with what fills up to the next multiple of the alignment."""
    for array in arrays.values():
        yield array.reshape(-1).view(np.uint8).data
        yield bytes(-array.nbytes % _ALIGNMENT)


def load_packed(path: Path, *, key: str = "") -> PackedAnnotations:
    """Map a file of `save_packed` into memory, read-only, after a check of every byte.

    Args:
        path: of the file.
        key: what the arrays must have been made of.

    Raises:
        OSError: when there is no such file.
        ValueError: when it is damaged, of another format, machine or key; the message says which and names the file.
    """
    with open(path, "rb") as file:
        header, checksum = _read_header(file, path)
        _require(header["key"] == key, path, f"was made of something else ({header['key']!r}, not {key!r})")
        _require(_checksum_of_rest(file) == header["checksum"], path, "is damaged: its checksum is wrong")
        start = file.tell()
        try:
            check_arrays(file, _places(start, header))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: it {error}") from None
        file.seek(start)
        return _map(file, path, header, checksum)


def map_packed(path: Path, checksum: int) -> PackedAnnotations:
    """Map a file again that `load_packed` has checked in another process.

    Raises:
        OSError: when it is gone.
        ValueError: when there is another file in its place.
    """
    with open(path, "rb") as file:
        header, own = _read_header(file, path)
        _require(own == checksum, path, "was replaced by another while it was in use; start the run again")
        return _map(file, path, header, checksum)


def _require(fits: bool, path: Path, fault: str) -> None:
    if not fits:
        raise ValueError(f"{path} {fault}")


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and its checksum; the file then stands at the arrays."""
    prefix = file.read(_PREFIX.size)
    _require(len(prefix) == _PREFIX.size and prefix.startswith(_MAGIC), path, "does not hold packed annotations")
    _, length, checksum = _PREFIX.unpack(prefix)
    text = file.read(min(length, _LONGEST_HEADER))
    _require(len(text) == length and zlib.crc32(text) == checksum, path, "is damaged: its header is broken")
    try:
        header = orjson.loads(text)
    except ValueError:
        header = None
    _require(isinstance(header, dict) and header.keys() == _HEADER, path, "is damaged: its header is another")
    _require(header["format"] == FORMAT_VERSION, path, f"has format {header['format']!r:.20}, not {FORMAT_VERSION}")
    try:
        check_table(header["arrays"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it {error}") from None
    types = [np.dtype(dtype) for _, dtype, _ in header["arrays"]]
    _require(all(dtype.isnative for dtype in types), path, "was written on a machine of another byte order")
    end = file.tell() + sum(_padded_size(dtype, shape) for _, dtype, shape in header["arrays"])
    size = os.fstat(file.fileno()).st_size
    _require(size == end, path, f"is damaged: it has {size} bytes and should have {end}")
    return header, checksum


def _size(dtype: str, shape: list[int]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _padded_size(dtype: str, shape: list[int]) -> int:
    size = _size(dtype, shape)
    return size + -size % _ALIGNMENT


def _places(position: int, header: dict[str, Any]) -> dict[str, tuple[int, str, list[int]]]:
    """Array -> where it begins in the file, its type and its shape; ``position``: the end of the header."""
    places = {}
    for name, dtype, shape in header["arrays"]:
        places[name] = (position, dtype, shape)
        position += _padded_size(dtype, shape)
    return places


def _checksum_of_rest(file: BinaryIO) -> int:
    # Read, not mapped: pages that a process has touched through a mapping count as its memory.
    start, checksum = file.tell(), 0
    block = memoryview(bytearray(min(_READ, os.fstat(file.fileno()).st_size)))
    while count := file.readinto(block):  # type: ignore[attr-defined]
        checksum = zlib.crc32(block[:count], checksum)
    file.seek(start)
    return checksum


def _map(file: BinaryIO, path: Path, header: dict[str, Any], checksum: int) -> PackedAnnotations:
    places = _places(file.tell(), header)
    block = np.memmap(file, dtype=np.uint8, mode="r")
    views = {}
    for name, (start, dtype, shape) in places.items():
        # np.asarray: views of a memmap object are slower to slice than plain arrays on the same memory
        views[name] = np.asarray(block[start : start + _size(dtype, shape)]).view(dtype).reshape(shape)
    values: dict[str, Any] = {}
    for item in fields(PackedAnnotations):
        group = _GROUPS.get(item.type)
        if group is not None:
            values[item.name] = group(*(views[f"{item.name}.{part.name}"] for part in fields(group)))
        elif item.name in views:
            values[item.name] = views[item.name]
    return PackedAnnotations(**values, path=Path(path), checksum=checksum)
