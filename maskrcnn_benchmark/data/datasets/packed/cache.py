"""Where packed annotations are kept, and which of several processes makes them.

What is promised: arrays are those of the annotation file as it is at the time of opening. Every byte of a cache is
checked when a run opens it (workers map what the run has checked); one that is damaged, of another format or machine is
made again, by one process, with a warning. What changes in a cache while it is in use is not noticed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations
from maskrcnn_benchmark.data.datasets.packed.file import FORMAT_VERSION, PART_SUFFIX, load_packed, save_packed

try:
    import fcntl
except ImportError:  # Windows: two processes may then both write the cache; each still replaces it in one step
    fcntl = None

logger = logging.getLogger(__name__)

# A smaller file is read to know its content; that takes less than 10 ms.
_SMALL = 8 << 20
# A file that was written to as recently as this could be written to again and keep its times: file systems count them
# in steps of up to 2 seconds. Where the clock is another than the file's, clocks that differ count too.
_SETTLED = 10 * 10**9
_SETTLED_ELSEWHERE = 3600 * 10**9
_ATTEMPTS = 3


def open_packed(
    ann_file: str | Path, pack: Callable[[Path], PackedAnnotations], *, fingerprint: str | None = None
) -> PackedAnnotations:
    """The packed form of an annotation file, from the cache when it is there.

    The cache lies beside the file, or in the user's cache folder when that place cannot be written. Its name holds the
    hash of the file's content and the format version, so a changed file is packed anew.

    Args:
        ann_file: the annotation file; the folder, where annotations are many files.
        pack: parses it; called by one process only.
        fingerprint: stands for the content; None takes the hash of the file. See `fingerprint_of`.

    Returns:
        Memory-mapped arrays; arrays in memory when no cache can be written.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file keeps changing while it is read.
    """
    ann_file = Path(ann_file)
    if fingerprint is None and not ann_file.is_file():
        raise FileNotFoundError(f"annotation file {ann_file} does not exist")
    for _ in range(_ATTEMPTS):
        packed = _open_or_make(ann_file, pack, lambda: fingerprint or content_hash(ann_file))
        if packed is not None:
            return packed
    raise ValueError(f"annotation file {ann_file} changes while it is read; start again when it is complete")


def _open_or_make(
    ann_file: Path, pack: Callable[[Path], PackedAnnotations], make_key: Callable[[], str]
) -> PackedAnnotations | None:
    """None: the file is not what it was when its key was made."""
    key = make_key()
    name = f"{ann_file.stem}.{key}.v{FORMAT_VERSION}.packed"
    paths = [folder / name for folder in _cache_folders(ann_file)]
    found = next(filter(None, (_load_sound(path, key) for path in paths)), None)
    packed, reason = None, None
    for path in paths if found is None else ():
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(path))
            except OSError as error:
                reason = error
                continue
            found = _load_sound(path, key, warn=False)  # of the process that had the lock before
            if found is not None:
                break
            if packed is None:
                packed = pack(ann_file)
                if make_key() != key:
                    return None
            try:
                save_packed(packed, path, key=key)
                return load_packed(path, key=key)
            except OSError as error:
                reason = error
    if found is not None:
        return found
    logger.warning("No cache for %s can be written (%s): it is parsed again in every process", ann_file, reason)
    return packed or pack(ann_file)


def _load_sound(path: Path, key: str, *, warn: bool = True) -> PackedAnnotations | None:
    """The arrays in a cache; None where there is none, or none that can be used."""
    try:
        return load_packed(path, key=key)
    except OSError:
        return None
    except ValueError as error:
        if warn:
            logger.warning("The cache %s; it is made again", error)
        return None


def _cache_folders(ann_file: Path) -> Iterator[Path]:
    # The superuser could write to a folder without write permission, but whoever took it away meant it.
    if ann_file.parent.stat().st_mode & 0o222:
        yield ann_file.parent
    yield _user_folder()


def _user_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "maskrcnn_benchmark"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``: of the processes that start together one packs, the others wait for it."""
    lock = path.with_name(f".{path.name}.lock")
    file, is_alone = _take_lock(lock)
    with file:
        if is_alone:  # what a process left that was killed while it wrote
            for part in path.parent.glob(f".{glob.escape(path.name)}.*{PART_SUFFIX}"):
                part.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _take_lock(lock: Path) -> tuple[BinaryIO, bool]:
    """The open lock file, and whether no other process has it; False where the file system knows no locks."""
    while True:
        file = open(lock, "wb")  # noqa: SIM115, the caller closes it
        if fcntl is None:
            return file, False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Waiting for another process that writes %s", lock.name[1 : -len(".lock")])
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return file, False
        # Whoever had the lock has deleted the file since; the lock of a deleted file is nobody's.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file, True
        file.close()


def fingerprint_of(files: Iterable[Path], *settings: object) -> str:
    """What `open_packed` takes where annotations are thousands of files: their sizes and times, unread.

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


def content_hash(path: Path) -> str:
    """Hash of a file's content.

    A large file is read once: a stamp in the cache then says what its content is for as long as size, inode and times
    are the same, the time of the last change of any kind included, which no program can set. A file that was written
    to a moment ago gets no stamp: it could be written to again with the same times.

    Raises:
        OSError: when it cannot be read.
    """
    with open(path, "rb") as file:  # opening asks a network file system for the present state; a bare stat may not
        status = os.fstat(file.fileno())
        if status.st_size < _SMALL:
            return _hash(file)
        state = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        stamps = [folder / _stamp_name(path, folder) for folder in _cache_folders(path)]
        known = next(filter(None, (_read_stamp(stamp, state) for stamp in stamps)), None)
        if known is not None:
            return known
        for stamp in stamps:
            try:
                stamp.parent.mkdir(parents=True, exist_ok=True)
                handle, temporary = tempfile.mkstemp(prefix=stamp.name, suffix=PART_SUFFIX, dir=stamp.parent)
            except OSError:
                continue
            try:
                clock = os.fstat(handle)
                digest = _hash(file)
                if _is_settled(status, clock):
                    _write_stamp(stamp, Path(temporary), [*state, digest])
                return digest
            finally:
                os.close(handle)
                Path(temporary).unlink(missing_ok=True)
        return _hash(file)


def _is_settled(status: os.stat_result, clock: os.stat_result) -> bool:
    """Whether a file cannot be written to any more and keep its times; ``clock`` is a file created just now."""
    wait = _SETTLED if clock.st_dev == status.st_dev else _SETTLED_ELSEWHERE
    return max(status.st_mtime_ns, status.st_ctime_ns) + wait <= clock.st_mtime_ns


def _write_stamp(stamp: Path, temporary: Path, entries: list[Any]) -> None:
    content = orjson.dumps(entries)
    with contextlib.suppress(OSError):
        temporary.write_bytes(b"%08x %s" % (zlib.crc32(content), content))
        temporary.chmod(0o644)
        os.replace(temporary, stamp)


def _hash(file: BinaryIO) -> str:
    digest = hashlib.blake2b(digest_size=8)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _stamp_name(path: Path, folder: Path) -> str:
    if folder == path.parent:
        return f".{path.name}.stamp"
    place = hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()
    return f".{path.name}.{place}.stamp"


def _read_stamp(stamp: Path, state: list[int]) -> str | None:
    """The hash of a file's content if it is as it was when the stamp was made; None: unknown."""
    try:
        checksum, _, content = stamp.read_bytes().partition(b" ")
        if checksum == b"%08x" % zlib.crc32(content):
            *then, digest = orjson.loads(content)
            return digest if then == state else None
    except (OSError, ValueError):
        pass
    return None
