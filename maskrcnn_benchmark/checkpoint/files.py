"""Files that are whole or not there, show when they are damaged, and never run code when read."""

from __future__ import annotations

import os
import re
import zipfile
from typing import IO, Any

import torch

from maskrcnn_benchmark.checkpoint.torch_file import check_tensors, check_torch_file
from maskrcnn_benchmark.utils.files import write_atomically

# How torch.load says which class or function a file asks for.
_FOREIGN_GLOBAL = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
_ZIP = b"PK\3\4"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def remove_leftovers(folder: str) -> list[str]:
    """Remove the temporary files that a killed ``write_atomically`` left; nobody else may write in the folder now.

    Returns:
        Their names.
    """
    names = [entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name) and entry.is_file()]
    for name in names:
        os.unlink(os.path.join(folder, name))
    return names


def save_atomically(data: Any, path: str) -> None:
    """``torch.save`` through ``write_atomically``; the file holds a CRC-32 of each tensor (see ``check_sums``)."""

    def write(file: IO[bytes]) -> None:
        passing = _ErrorKeeper(file)
        try:
            torch.save(data, passing)  # type: ignore[arg-type]  (it needs no more of a file)
        except RuntimeError as error:  # the zip writer hides a full disk behind its own error
            raise passing.error or OSError(f"cannot write {path}: {error}") from error

    write_atomically(path, write)


class _ErrorKeeper:
    """A file being written that remembers what went wrong."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def check_sums(path: str) -> None:
    """Compare every record of a .pth file with the CRC-32 that ``torch.save`` puts beside it; ``torch.load`` does not.

    Files from before PyTorch 1.6 have no checksums and pass.

    Raises:
        ValueError: a bit has changed since the file was written; file and record are named.
    """
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # a damaged archive can fail in every way
        raise ValueError(f"{path} is truncated or damaged ({_first_line(error)})") from error
    if record is not None:
        raise ValueError(f"{path} is damaged: the checksum of {record} is wrong")


def read_weights(path: str, *, verify: bool = False) -> dict[str, Any]:
    """Read a .pth file on the CPU as plain data; pickled code is refused.

    Args:
        path: the file.
        verify: whether to ``check_sums`` first; meant for files of our own, since other programs may leave them out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, of another format, or holds more than plain data; it is named.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"weights file {path} does not exist")
    if verify:
        check_sums(path)
    check_torch_file(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in every way
        if foreign := _FOREIGN_GLOBAL.search(str(error)):
            raise ValueError(
                f"{path} is refused: it asks for {foreign.group(1)}, and only tensors and plain values are read; save "
                "its weights alone, torch.save(checkpoint['model'], ...), with the program that wrote it"
            ) from error
        raise ValueError(f"{path} is truncated or no checkpoint of plain tensors ({_first_line(error)})") from error
    check_tensors(data, path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, not a checkpoint")
    return data


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
