"""Fetch weights over http(s) once, whole and checked, into a cache that every run on the machine shares."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import re
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from maskrcnn_benchmark.checkpoint.files import write_atomically
from maskrcnn_benchmark.checkpoint.web import BLOCK, fetch_rest
from maskrcnn_benchmark.utils import comm

try:
    import fcntl
except ImportError:  # Windows: two processes may then both download; each still puts a whole file in place
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("maskrcnn_benchmark.checkpoint")

CACHE_VARIABLE = "MASKRCNN_CACHE"
ATTEMPTS = 3
_LOST = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_ADDRESS_SIGNS = "/:?=&%~+,;@!$'()*[]"  # every other character is written as %XX
_CHECKSUM = re.compile(r"(sha256|md5)=([0-9a-fA-F]+)")
_LENGTHS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Checksum:
    """What the content of a file must hash to; ``digest`` may be its beginning only."""

    algorithm: str
    digest: str

    def check(self, path: Path) -> str:
        """Return what a file hashes to instead; "" where it fits."""
        found = _hash(path, self.algorithm)
        return "" if found.startswith(self.digest) else found

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest}"


def cache_folder() -> Path:
    """Where downloads are kept: $MASKRCNN_CACHE, else $XDG_CACHE_HOME/maskrcnn_benchmark, else below ~/.cache."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.expanduser(own))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "maskrcnn_benchmark"


def cached_path(url: str) -> Path:
    """Where the file of an address lies in the cache: below weights/, in folders named as in the address.

    Raises:
        ValueError: it is no http(s) address of a file.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path.strip("/") != ""
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"{url[:200]!r} is no address of a file, such as https://example.org/weights.pth")
    if "@" in parts.netloc:
        raise ValueError("an address with a user or password in it is not fetched; fetch the file and name its path")
    steps = [step for step in [parts.netloc, *parts.path.split("/")] if step]
    if parts.query:
        steps[-1] = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}-{steps[-1]}"
    # Nothing that a file system could take for another folder, and no name longer than it allows.
    safe = [re.sub(r"[^\w.%=+,-]|^\.+", "_", step)[-200:] for step in steps]
    return cache_folder().joinpath("weights", *safe)


def fetch(url: str, *, known: str = "") -> Path:
    """The local file of an address, downloaded on first use and checked on every one.

    One process of the run downloads; where nodes do not share the cache, one on each. All processes must call this.

    Args:
        url: http(s)://...; may end in ``#sha256=<64 hex digits>`` or ``#md5=...``.
        known: a checksum that is known for the address, written the same way. Without any, the file's sha256 is
            noted beside it on first use, and holds from then on.

    Raises:
        ValueError: the content has another checksum. OSError: it cannot be fetched; the message names the remedy.
    """
    url, fragment = urllib.parse.urldefrag(url)
    address = urllib.parse.quote(url, safe=_ADDRESS_SIGNS)
    checksum = _parse(fragment, url) or _parse(known, url) or _torch_checksum(address)
    path = cached_path(address)
    _on_one(lambda: comm.get_rank() == 0, lambda: _provide(address, path, checksum))
    _on_one(lambda: comm.get_local_rank() == 0 and comm.get_rank() != 0, lambda: _provide(address, path, checksum))
    return path


def _on_one(is_chosen: Callable[[], bool], action: Callable[[], None]) -> None:
    """Run an action on the chosen processes while the others wait; where it fails, it fails on all."""
    error: Exception | None = None
    if is_chosen():
        try:
            action()
        except (OSError, ValueError) as caught:
            error = caught
    outcomes = comm.all_gather(None if error is None else (isinstance(error, ValueError), str(error)))
    if error is not None:
        raise error
    for outcome in outcomes:
        if outcome is not None:
            raise (ValueError if outcome[0] else OSError)(outcome[1])


def _provide(url: str, path: Path, checksum: Checksum | None) -> None:
    """Make sure that the whole file is in the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the cache folder {path.parent} cannot be made ({error.strerror}); set {CACHE_VARIABLE} to another one"
        ) from error
    with _locked(path):
        if path.is_file() and _is_whole(path, checksum):
            return
        _download(url, path, checksum)
        _note(path)


def _is_whole(path: Path, checksum: Checksum | None) -> bool:
    """Whether the cached file is what it should be; a damaged one is named, to be fetched again."""
    note = _note_of(path)
    if checksum is None and note.is_file():
        digest = note.read_text(encoding="ascii", errors="replace").partition(" ")[0].strip()
        checksum = _parse(f"sha256={digest}", str(note))
    if checksum is None:  # put there by hand
        _note(path)
        return True
    if found := checksum.check(path):
        logger.warning("%s is damaged (%s instead of %s): it is fetched again", path, found, checksum)
        return False
    return True


def _download(url: str, path: Path, checksum: Checksum | None) -> None:
    part = path.with_name(f"{path.name}.part")
    logger.info("Downloading %s to %s", url, path)
    if checksum is None and not url.startswith("https:"):
        logger.warning("%s is neither encrypted nor has it a checksum: add #sha256=... to the address", url)
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.is_file() else 0
        try:
            fetch_rest(url, part, needs_length=checksum is None)
            break
        except urllib.error.HTTPError as error:
            part.unlink(missing_ok=True)
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                continue  # more was there than the server has: from the start
            raise OSError(f"{url} cannot be downloaded: {error.code} {error.reason}; {_remedy(path)}") from error
        except _LOST as error:
            progress = part.is_file() and part.stat().st_size > before
            if attempt == ATTEMPTS or not progress:
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise OSError(f"{url} cannot be downloaded ({reason}); {_remedy(path)}") from error
            logger.warning("The download of %s broke off (%s); going on", url, error)
        except OSError as error:
            raise OSError(
                f"{part} cannot be written ({error.strerror or error}); set {CACHE_VARIABLE} to a folder with space"
            ) from error
        except ValueError as error:  # what cannot be asked for, or not be kept
            part.unlink(missing_ok=True)
            raise ValueError(f"{url} cannot be downloaded: {error}; {_remedy(path)}") from error
    if checksum is not None and (found := checksum.check(part)):
        part.unlink()
        raise ValueError(f"{url} has {checksum.algorithm} {found} instead of {checksum.digest}, and was not kept")
    _note_of(path).unlink(missing_ok=True)
    os.replace(part, path)


def _remedy(path: Path) -> str:
    return (
        f"without a network, put the file at {path} or name another place in MODEL.WEIGHT, "
        "or start without weights: MODEL.WEIGHT ''"
    )


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _note(path: Path) -> None:
    """Note the sha256 beside the file, in the format of sha256sum."""
    line = f"{_hash(path, 'sha256')}  {path.name}\n"
    write_atomically(str(_note_of(path)), lambda file: file.write(line.encode()))


def _parse(text: str, source: str) -> Checksum | None:
    if not text:
        return None
    match = _CHECKSUM.fullmatch(text)
    if match is None or len(match.group(2)) != _LENGTHS[match.group(1)]:
        raise ValueError(f"{source}: a checksum is written #sha256=<64 hex digits> or #md5=<32>, not {text!r}")
    return Checksum(match.group(1), match.group(2).lower())


def _torch_checksum(address: str) -> Checksum | None:
    """The files of torchvision carry the beginning of their sha256 in their names."""
    match = re.fullmatch(r"https://download\.pytorch\.org/models/.*-([0-9a-f]{8,})\.pth", address)
    return Checksum("sha256", match.group(1)) if match else None


def _hash(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``: of runs that start together one downloads, the others wait and find the file."""
    with open(path.with_name(f".{path.name}.lock"), "wb") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
