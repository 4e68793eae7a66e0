"""YAML as plain values: no tags that make objects, no aliases that multiply, one kind of error."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)

# The parser takes about ten seconds for so many bytes; the largest published config has 3 kB.
LARGEST = 1 << 20
# A document of a few lines whose aliases name each other stands for more values than any memory holds.
MOST_VALUES = 1 << 18


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that stands twice is told, and as in every reader of YAML the last one counts."""

    source = ""

    def flatten_mapping(self, node: Any) -> None:
        """Put what a mapping is merged with (``<<: *name``) into it, as far as that stays within bounds."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "its merged mappings (<<) multiply", node.start_mark)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                logger.warning("%s: %.60s stands twice in one section; line %d counts", self.source, key.value, line)
            seen.add(key.value)
        return node


def parse_yaml(text: str | bytes, source: str) -> Any:
    """Read one YAML document.

    Args:
        text: the document; bytes are UTF-8.
        source: what it is, with its path, for messages: "config file a.yaml".

    Raises:
        ValueError: it is no YAML, holds more than plain values, or is larger than any honest one.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{source} has more than {LARGEST} bytes, which no file of keys and values has")
    try:
        loader = _Loader(text.decode("utf-8") if isinstance(text, bytes) else text)
        loader.source = source
        tree = loader.get_single_data()
    except Exception as error:  # numbers, dates and depths beyond its means end in errors of every kind
        raise ValueError(f"{source} is not valid YAML:{_describe(error)}") from error
    _check_size(tree, source)
    return tree


def read_yaml(path: str | os.PathLike[str], source: str) -> Any:
    """`parse_yaml` of a file.

    Raises:
        OSError: it cannot be read. ValueError: see `parse_yaml`.
    """
    with Path(path).open("rb") as file:
        return parse_yaml(file.read(LARGEST + 1), source)


def _describe(error: Exception) -> str:
    """Place and problem, behind the colon."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
    if isinstance(error, RecursionError):
        return " it is nested too deeply"
    return f"{place} {' '.join(str(problem or error).split())[:200]}"


def _check_size(tree: Any, source: str) -> None:
    """Count the values as they would be written out, so that nobody who goes through them has to."""
    waiting, count = [tree], 0
    while waiting:
        value = waiting.pop()
        items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
        count += 1 + len(items)
        if count > MOST_VALUES:
            raise ValueError(
                f"{source} stands for more than {MOST_VALUES} values, written out; are there aliases (*name)?"
            )
        waiting.extend(items)
