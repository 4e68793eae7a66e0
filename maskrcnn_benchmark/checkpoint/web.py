"""Files over http(s): whole or named, never from elsewhere than the web, never more than there is room for."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger("maskrcnn_benchmark.checkpoint")

BLOCK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
SLOWEST = 1024  # bytes a second, over PATIENCE seconds: a server that sends less keeps a run waiting for ever
PATIENCE = 60.0
PROGRESS_PERIOD = 5.0  # seconds
LARGEST = 16 << 30  # bytes of a file of weights
MOST_REDIRECTS = 5
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,200}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another place on the web, never to files of this machine or from https back to http."""

    max_redirections = MOST_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it is redirected to {newurl[:200]}, which is not on the web")
        if req.type == "https" and scheme != "https":
            raise urllib.error.URLError(f"it is redirected to {newurl[:200]}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _make_opener() -> urllib.request.OpenerDirector:
    """What opens http and https only; urllib's own also opens files, ftp and data in the address."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _Redirects,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def fetch_rest(url: str, part: Path, *, needs_length: bool) -> None:
    """Append what is missing of a file, or all of it where the server's content may have changed since.

    Args:
        url: of the file.
        part: what there is of it.
        needs_length: nothing else would tell whether all of it arrived.

    Raises:
        urllib.error.HTTPError, urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError: it did
            not arrive, or not all of it.
        OSError: it cannot be written. ValueError: it is not to be kept.
    """
    validator = part.with_name(f"{part.name}.etag")
    headers = {"User-Agent": "maskrcnn_benchmark"}
    if part.is_file() and validator.is_file():
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator.read_text(encoding="latin-1")}
    with _make_opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = part.stat().st_size if resumed else 0
        if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than it was asked for")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() and len(length) < 20 else None
        _check_room(part, start, total)
        if needs_length and total is None and not response.chunked:
            raise ValueError("the server does not say how long it is, so add #sha256=... to the address")
        with open(part, "ab" if resumed else "wb") as file:
            _keep_validator(validator, response.headers)
            _copy(response, file, start, total, os.path.basename(url))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")
    validator.unlink(missing_ok=True)


def _check_room(part: Path, start: int, total: int | None) -> None:
    """Refuse what is larger than any weights, or than the disk."""
    if total is None:
        return
    if total > LARGEST:
        raise ValueError(f"it has {total} bytes, and weights have {LARGEST} at most")
    free = shutil.disk_usage(part.parent).free
    if total - start > free:
        raise OSError(errno.ENOSPC, f"{(total - start) >> 20} MB are to come, {free >> 20} MB are free")


def _copy(response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None, name: str) -> None:
    now = time.monotonic()
    next_line, next_look, seen = now + PROGRESS_PERIOD, now + PATIENCE, done
    while block := response.read1(BLOCK):
        file.write(block)
        done += len(block)
        now = time.monotonic()
        if done > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        if now >= next_look:
            if done - seen < SLOWEST * PATIENCE:
                raise TimeoutError(f"{done - seen} bytes came in {PATIENCE:.0f} s")
            next_look, seen = now + PATIENCE, done
        if now >= next_line:
            next_line = now + PROGRESS_PERIOD
            share = f" ({100 * done // total} %)" if total else ""
            logger.info("%s: %.0f MB%s", name, done / 1e6, share)


def _keep_validator(path: Path, headers: Any) -> None:
    """Keep what tells a later request whether the content is still the same; weak tags do not."""
    tag = headers.get("ETag") or ""
    value = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    if value and _VALIDATOR.fullmatch(value):  # it goes into a header
        path.write_text(value, encoding="latin-1")
    else:
        path.unlink(missing_ok=True)
