"""A large JSON file piece by piece: as fast as the whole at once, in a small part of the memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import orjson

_PIECE = 4 << 20  # bytes of the file at a time; as Python objects they take ten times as much
_BLANK = rb"[ \t\r\n]*"
_OPENING = re.compile(_BLANK + rb"\{")
_OPENING_OF_LIST = re.compile(_BLANK + rb"\[")
_KEY = re.compile(_BLANK + rb'("(?:[^"\\]|\\.)*")' + _BLANK + rb":" + _BLANK)
_LIST = re.compile(rb"(\[?)")
_END_OF_VALUE = re.compile(r"[ \t\r\n]*[,}]")
_SEPARATOR = re.compile(_BLANK + rb"([,}])")
# Where a list of objects can be cut. Strings and lists inside its items may hold the same characters, so a cut counts
# only when what stands before it is a list of whole items; a parser that went through it is then where we think.
_CUT = re.compile(rb"\}" + _BLANK + rb"," + _BLANK + rb"(?=\{)")
_MOST_CUTS = 16
_LONGEST_TOKEN = 40  # of those that the parser's position may stand before: numbers, true, false, null
_NOT_ASCII = bytes(range(128, 256))  # a character may go on behind the text


class UnsplittableError(Exception):
    """The file is not JSON, or not a large list of objects inside an object: it has to be read as a whole."""


def read_members(path: Path, *, piece: int = _PIECE) -> Iterator[tuple[str, Any]]:
    """The members of the JSON object in a file, in their order; a list comes in pieces, each a list under its key.

    An empty list is one empty piece. Of two members with one name both come.

    Args:
        path: of the file.
        piece: bytes of a list to read at a time.

    Raises:
        OSError: when the file cannot be read.
        UnsplittableError: also after some members.
    """
    with open(path, "rb") as file:
        source = _Source(file, piece)
        try:
            source.take(_OPENING)
            separator = b","
            while separator == b",":
                key = orjson.loads(source.take(_KEY))
                if source.take(_LIST) == b"[":
                    yield from ((key, items) for items in source.take_items())
                else:
                    yield key, source.take_value()
                separator = source.take(_SEPARATOR)
            source.expect_end()
        except ValueError as error:
            raise UnsplittableError from error


def read_items(path: Path, *, piece: int = _PIECE) -> Iterator[list[Any]]:
    """The items of the JSON list of objects that a file is, in their order; they come in pieces.

    Args:
        path: of the file.
        piece: bytes to read at a time.

    Raises:
        OSError: when the file cannot be read.
        UnsplittableError: also after some items.
    """
    with open(path, "rb") as file:
        source = _Source(file, piece)
        try:
            source.take(_OPENING_OF_LIST)
            yield from source.take_items()
            source.expect_end()
        except ValueError as error:
            raise UnsplittableError from error


class _Source:
    """The part of a file that is in memory; what is taken leaves it."""

    def __init__(self, file: BinaryIO, piece: int) -> None:
        self.file = file
        self.piece = piece
        self.text = b""

    def grow(self) -> None:
        """Read on."""
        block = self.file.read(max(self.piece, len(self.text)))
        if not block:
            raise UnsplittableError
        self.text += block

    def take(self, pattern: re.Pattern[bytes]) -> bytes:
        """What the text begins with: the pattern's last group, or all of it."""
        while True:
            found = pattern.match(self.text)
            if found and (found.end() < len(self.text) or not self._fill()):  # else it may go on
                self.text = self.text[found.end() :]
                return found[pattern.groups]
            if not found:
                self.grow()

    def _fill(self) -> bool:
        """Read on; False at the end of the file."""
        try:
            self.grow()
        except UnsplittableError:
            return False
        return True

    def take_value(self) -> Any:
        """A value that is no list."""
        window = 1 << 16
        while True:
            text = codecs.getincrementaldecoder("utf-8")().decode(self.text[:window])
            try:
                value, end = _DECODER.raw_decode(text)
                is_whole = _END_OF_VALUE.match(text, end) is not None
            except json.JSONDecodeError:
                is_whole = False
            if is_whole:
                self.text = self.text[len(text[:end].encode()) :]
                return value
            if window >= len(self.text):
                self.grow()
            window *= 4

    def take_items(self) -> Iterator[list[Any]]:
        """The items of a list whose bracket has been taken, until its end."""
        ended = False
        while not ended:
            while len(self.text) < self.piece and self._fill():
                pass
            items, ended = self._take_some()
            yield items

    def _take_some(self) -> tuple[list[Any], bool]:
        """Some whole items, and whether the list ends after them."""
        while True:
            for cut in self._cuts():
                document = b"[" + (self.text[: cut.start() + 1] if cut else self.text.rstrip(_NOT_ASCII)) + b"]"
                try:
                    items = orjson.loads(document)
                    if cut:
                        self.text = self.text[cut.end() :]
                        return items, False
                    continue  # where no object ends, a number may go on
                except orjson.JSONDecodeError as error:
                    reached = len(error.doc[: error.pos].encode())
                try:
                    items = orjson.loads(document[:reached])
                except orjson.JSONDecodeError:
                    if reached < len(document) - _LONGEST_TOKEN:
                        raise
                    continue  # cut inside an item
                self.text = self.text[reached - 1 :]
                return items, True
            self.grow()

    def _cuts(self) -> Iterator[re.Match[bytes] | None]:
        """Places where the list may be cut, from the last one on; then None, the end of the text."""
        position, count = len(self.text), 0
        while count < _MOST_CUTS and (position := self.text.rfind(b"}", 0, position)) >= 0:
            cut = _CUT.match(self.text, position)
            if cut:
                count += 1
                yield cut
        yield None

    def expect_end(self) -> None:
        if self.text.strip(b" \t\r\n") or self.file.read().strip(b" \t\r\n"):
            raise UnsplittableError


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
