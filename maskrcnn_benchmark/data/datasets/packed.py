"""Annotations of a data set as flat arrays in one memory-mapped file, shared by all processes of a machine.

Letters: I images, K categories, A annotations, Q polygon rings, V polygon vertices, T keypoints of all annotations.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # Windows: two processes may then both write the cache; each still replaces it in one step
    fcntl = None

# Part of the cache's file name: raise it whenever an array changes its meaning.
FORMAT_VERSION = 2
_MAGIC = b"MRCNNPAK"
_ALIGNMENT = 64


@dataclass(frozen=True)
class PackedStrings:
    """A list of strings as one block of UTF-8 bytes.

    Attributes:
        data: uint8, all strings one after the other.
        offsets: int64 [n + 1], first byte of each.
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def pack(cls, strings: list[str]) -> PackedStrings:
        """Pack a list of strings."""
        encoded = [string.encode() for string in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __getitem__(self, index: int) -> str:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class PackedAnnotations:
    """What training needs of an annotation file. Rows of images come in ascending order of their ids.

    Attributes:
        image_ids: int64 [I], ascending.
        image_sizes: int32 [I, 2], (height, width).
        file_names: I names.
        category_ids: int64 [K] in the order of the file; label k is category_ids[k - 1].
        category_names: K names.
        keypoint_names: K texts, the names of the keypoints of each category, one a line; empty where there are none.
        annotation_offsets: int64 [I + 1], first annotation of each image.
        boxes: float32 [A, 4], x, y, width, height as in the file.
        labels: int64 [A], 1 .. K.
        iscrowd: bool [A]; in Pascal VOC's format the difficult objects.
        areas: float32 [A].
        polygon_offsets: int64 [A + 1], first ring of each annotation; a crowd has no rings.
        ring_offsets: int64 [Q + 1], first vertex of each ring.
        coords: float32 [V, 2], x and y in pixels.
        keypoint_offsets: int64 [A + 1], first keypoint of each annotation.
        keypoints: float32 [T, 3], x and y in pixels and visibility.
        path: the file behind the arrays; None when they are in memory.
    """

    image_ids: np.ndarray
    image_sizes: np.ndarray
    file_names: PackedStrings
    category_ids: np.ndarray
    category_names: PackedStrings
    keypoint_names: PackedStrings
    annotation_offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    areas: np.ndarray
    polygon_offsets: np.ndarray
    ring_offsets: np.ndarray
    coords: np.ndarray
    keypoint_offsets: np.ndarray
    keypoints: np.ndarray
    path: Path | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[Callable, tuple]:
        # A worker that does not share memory by fork maps the file again instead of receiving a copy.
        if self.path is not None:
            return load_packed, (self.path,)
        return PackedAnnotations, tuple(getattr(self, item.name) for item in fields(self))

    def take_polygons(self, annotations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Polygons of some annotations, copied.

        Args:
            annotations: int64 [G], rows of annotations.

        Returns:
            coords float32 [V', 2], ring_offsets int64 [Q' + 1], instance_offsets int64 [G + 1].
        """
        first, last = self.polygon_offsets[annotations], self.polygon_offsets[annotations + 1]
        rings = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)] or [np.arange(0)])
        begin, end = self.ring_offsets[rings], self.ring_offsets[rings + 1]
        parts = [self.coords[a:b] for a, b in zip(begin, end, strict=True)]
        coords = np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.float32)
        return coords, offsets_of(end - begin), offsets_of(last - first)

    def take_keypoints(self, annotations: np.ndarray, count: int) -> np.ndarray:
        """Keypoints of some annotations, float32 [G, count, 3], copied; zeros for an annotation without keypoints.

        Args:
            annotations: int64 [G], rows of annotations, each with ``count`` keypoints or none.
            count: P.
        """
        points = np.zeros((len(annotations), count, 3), dtype=np.float32)
        first, last = self.keypoint_offsets[annotations], self.keypoint_offsets[annotations + 1]
        has_any = last > first
        points[has_any] = self.keypoints[first[has_any, None] + np.arange(count)]
        return points


def offsets_of(lengths: np.ndarray | list[int]) -> np.ndarray:
    """int64 [n + 1]: where each of n pieces begins that lie one after the other, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _arrays(packed: PackedAnnotations) -> Iterator[tuple[str, np.ndarray]]:
    for item in fields(packed):
        value = getattr(packed, item.name)
        if isinstance(value, PackedStrings):
            yield f"{item.name}.data", value.data
            yield f"{item.name}.offsets", value.offsets
        elif isinstance(value, np.ndarray):
            yield item.name, value


def save_packed(packed: PackedAnnotations, path: Path) -> None:
    """Write the arrays to ``path`` in one step: a reader sees the whole file or none.

    Raises:
        OSError: when the folder cannot be written.
    """
    entries, position = {}, 0
    for name, array in _arrays(packed):
        position = -(-position // _ALIGNMENT) * _ALIGNMENT
        entries[name] = (array.dtype.str, array.shape, position)
        position += array.nbytes
    header = json.dumps(entries).encode()
    start = -(-(len(_MAGIC) + 8 + len(header)) // _ALIGNMENT) * _ALIGNMENT
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            for name, array in _arrays(packed):
                file.seek(start + entries[name][2])
                file.write(np.ascontiguousarray(array).data)
            file.truncate(start + position)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_packed(path: Path) -> PackedAnnotations:
    """Map a file of :func:`save_packed` into memory, read-only.

    Raises:
        OSError: when there is no such file.
        ValueError: when it is not such a file.
    """
    block = np.memmap(path, dtype=np.uint8, mode="r")
    prefix = len(_MAGIC) + 8
    if bytes(block[: len(_MAGIC)]) != _MAGIC:
        raise ValueError(f"{path} does not hold packed annotations; delete it")
    length = int.from_bytes(bytes(block[len(_MAGIC) : prefix]), "little")
    entries = json.loads(bytes(block[prefix : prefix + length]))
    start = -(-(prefix + length) // _ALIGNMENT) * _ALIGNMENT

    def view(name: str) -> np.ndarray:
        dtype, shape, position = entries[name]
        size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
        # np.asarray: views of a memmap object are slower to slice than plain arrays on the same memory
        return np.asarray(block[start + position : start + position + size]).view(dtype).reshape(shape)

    values = {
        item.name: PackedStrings(view(f"{item.name}.data"), view(f"{item.name}.offsets"))
        if f"{item.name}.data" in entries
        else view(item.name)
        for item in fields(PackedAnnotations)
        if item.name != "path"
    }
    return PackedAnnotations(**values, path=Path(path))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``: of the processes that start together one packs, the others wait for it."""
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "wb") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # those who wait hold the deleted file; they find the cache written


def _content_hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of(files: Iterable[Path], *settings: object) -> str:
    """What :func:`open_packed` takes where annotations are thousands of files: their sizes and times, unread.

    Args:
        files: the annotation files.
        settings: what else the packed form depends on; taken by its `repr`.

    Raises:
        FileNotFoundError: when one of them does not exist.
    """
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=8)
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _cache_folders(ann_file: Path) -> Iterator[Path]:
    # The superuser could write to a folder without write permission, but whoever took it away meant it.
    if ann_file.parent.stat().st_mode & 0o222:
        yield ann_file.parent
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(home) / "maskrcnn_benchmark"


def open_packed(
    ann_file: str | Path, pack: Callable[[Path], PackedAnnotations], *, fingerprint: str | None = None
) -> PackedAnnotations:
    """The packed form of an annotation file, from the cache when it is there.

    The cache lies beside the file, or in the user's cache folder when that place cannot be written. Its name holds the
    hash of the file's content and the format version, so a changed file is packed anew.

    Args:
        ann_file: the annotation file; the folder, where annotations are many files.
        pack: parses it; called by one process only.
        fingerprint: stands for the content; None takes the hash of the file. See :func:`fingerprint_of`.

    Returns:
        Memory-mapped arrays; arrays in memory when no cache can be written.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    ann_file = Path(ann_file)
    if fingerprint is None and not ann_file.is_file():
        raise FileNotFoundError(f"annotation file {ann_file} does not exist")
    name = f"{ann_file.stem}.{fingerprint or _content_hash(ann_file)}.v{FORMAT_VERSION}.packed"
    candidates = [folder / name for folder in _cache_folders(ann_file)]
    for path in candidates:
        if path.exists():
            return load_packed(path)
    packed, reason = None, None
    for path in candidates:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                if not path.exists():
                    packed = packed or pack(ann_file)
                    save_packed(packed, path)
                return load_packed(path)
        except OSError as error:
            reason = error
    logging.getLogger(__name__).warning(
        "No cache for %s can be written (%s): it is parsed again in every process", ann_file, reason
    )
    return packed or pack(ann_file)
