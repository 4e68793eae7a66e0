"""Files that are whole or not there, and never run code when read."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from typing import IO, Any

import torch

# How torch.load says which class or function a file asks for.
_FOREIGN_GLOBAL = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")


def write_atomically(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that at any moment ``path`` holds the old content or the whole new one.

    Args:
        path: the file; what it held before stays until the new content is on the disk.
        write: called with the open temporary file beside it.

    Raises:
        OSError: the folder cannot be written or the disk is full; ``path`` is untouched then.
    """
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it what an ordinary open would.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)


def save_atomically(data: Any, path: str) -> None:
    """``torch.save`` through ``write_atomically``."""

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(data, file)
        except RuntimeError as error:  # the zip writer hides a full disk behind its own error
            raise OSError(f"cannot write {path}: {error}") from error

    write_atomically(path, write)


def read_weights(path: str) -> dict[str, Any]:
    """Read a .pth file on the CPU as plain data; pickled code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, of another format, or holds more than plain data; it is named.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in every way
        if foreign := _FOREIGN_GLOBAL.search(str(error)):
            raise ValueError(
                f"{path} is refused: it asks for {foreign.group(1)}, and only tensors and plain values are read; save "
                "its weights alone, torch.save(checkpoint['model'], ...), with the program that wrote it"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is truncated or no checkpoint of plain tensors ({reason})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, not a checkpoint")
    return data


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _sync_folder(folder: str) -> None:
    # Makes the rename itself durable; Windows cannot open folders.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
