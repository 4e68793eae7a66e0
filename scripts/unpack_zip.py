"""Unpacks a zip file below a folder, and nothing of it anywhere else; download_dataset.sh calls it.

python3 scripts/unpack_zip.py ARCHIVE [FOLDER]

Only plain files and folders are made, with ordinary permissions. Names that lead out of the folder, links, devices, and
archives that would fill the disk are refused before anything is written. Needs the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
import zlib

_BLOCK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\\:]")  # control characters, and what other systems take for folders and drives


def unpack(archive_path: str, folder: str) -> int:
    """Unpack all of an archive; files of the same name are replaced.

    Returns:
        The number of files.

    Raises:
        ValueError: the archive is damaged or asks for what it must not; nothing was written.
        OSError: it cannot be read, or the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            entries = archive.infolist()
            _check(entries, archive_path, folder)
            for entry in entries:
                _write(archive, entry, folder)
            return sum(not entry.is_dir() for entry in entries)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{archive_path} is damaged or no zip file: {error}") from error


def _check(entries: list[zipfile.ZipInfo], archive_path: str, folder: str) -> None:
    """Look at the whole list before the first file is written."""
    names = set()
    for entry in entries:
        fault = _fault_of(entry)
        if not fault and entry.filename.rstrip("/").casefold() in names:
            fault = "stands in it twice"
        if fault:
            raise ValueError(f"{archive_path} is refused: its entry {entry.filename[:200]!r} {fault}")
        names.add(entry.filename.rstrip("/").casefold())
    packed, size = sum(entry.compress_size for entry in entries), sum(entry.file_size for entry in entries)
    if packed > os.path.getsize(archive_path):
        raise ValueError(f"{archive_path} is refused: its entries lie over one another, as in a bomb")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"{archive_path} unpacks to {size >> 20} MB, but {folder} has {free >> 20} MB free")


def _fault_of(entry: zipfile.ZipInfo) -> str:
    """Why an entry is refused, as the end of a sentence; "" where it is not."""
    parts = entry.filename.rstrip("/").split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if _UNWANTED.search(entry.orig_filename) or any(part in ("", ".", "..") for part in parts):
        return "does not lie inside the archive's own folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        return "is encrypted, or packed in an unusual way"
    return ""


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: str) -> None:
    """Write one entry beside its place and rename it, so that no link that is there already is followed."""
    target = os.path.join(os.path.realpath(folder), *entry.filename.rstrip("/").split("/"))
    parent = target if entry.is_dir() else os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    if os.path.realpath(parent) != parent:
        raise ValueError(f"{parent} is, or lies behind, a link to {os.path.realpath(parent)}; take the link away")
    if entry.is_dir():
        return
    descriptor, temporary = tempfile.mkstemp(prefix=".unpack.", dir=parent)
    try:
        with os.fdopen(descriptor, "wb") as file, archive.open(entry) as source:
            shutil.copyfileobj(source, file, _BLOCK)  # zipfile ends at the size that was announced, and checks the CRC
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def main(arguments: list[str]) -> int:
    """Unpack; 0, or 1 with a sentence on stderr."""
    if len(arguments) not in (1, 2):
        print("Usage: python3 scripts/unpack_zip.py ARCHIVE [FOLDER]", file=sys.stderr)
        return 2
    archive, folder = arguments[0], arguments[1] if len(arguments) == 2 else "."
    try:
        os.makedirs(folder, exist_ok=True)
        count = unpack(archive, folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{archive}: {count} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
