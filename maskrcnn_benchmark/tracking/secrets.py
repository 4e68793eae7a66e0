"""Keeps out of messages and uploads what only the environment may hold."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Words in the names of variables whose values are nobody's business.
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(ACCESS|API|PRIVATE|ACCOUNT)_?KEY", re.IGNORECASE)
_SHORTEST = 6  # a shorter value may stand in a text by chance
# User and password before the host of an address.
_USER = re.compile(r"(\w+://)[^/@\s\"'<>]+@")
_TEXT_SUFFIXES = (".yml", ".yaml", ".json", ".jsonl", ".txt", ".html")
_HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """A text without the users and passwords of addresses, and without the values of secret environment variables."""
    for value in _secret_values():
        text = text.replace(value, _HIDDEN)
    return _USER.sub(r"\1", text)


def without_secrets(value: Any) -> Any:
    """Plain values, lists and dicts with `hide_secrets` of every text in them."""
    if isinstance(value, dict):
        return {key: without_secrets(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_secrets(each) for each in value)
    return hide_secrets(value) if isinstance(value, str) else value


@contextmanager
def shareable(path: str) -> Iterator[str]:
    """The path of a file that may leave the machine: itself, or for as long as the context lasts a cleaned copy.

    Raises:
        OSError: it cannot be read.
    """
    if not path.endswith(_TEXT_SUFFIXES):
        yield path
        return
    text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    cleaned = hide_secrets(text)
    if cleaned == text:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        copy.write_text(cleaned, encoding="utf-8", errors="surrogateescape")
        yield str(copy)


def _secret_values() -> list[str]:
    # Longest first: one may be part of another.
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)
