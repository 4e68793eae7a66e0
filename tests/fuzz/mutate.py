"""Changes to files: of bytes, of what a tree says, and those that somebody who means harm would make."""

from __future__ import annotations

import ast
import copy
import json
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

_MAGIC = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\n")
# What may stand in the place of any value.
WRONG: tuple[Any, ...] = (
    None, math.nan, math.inf, -math.inf, -1, 0, 1, 2, 2**31, 2**63, 10**30, 1e300, -1e-300, 0.5, True, "x", "", " ",
    "~nobody/x", "a\0b", "é\u202e", "../../etc/passwd", "/dev/zero", "$(touch pwned)", "`touch pwned`", "(" * 40, [],
    {}, [[]], [None], [1e300] * 4, [-1, 2], ["a", "b"], {"a": {"b": 1}}, [0.1, 0.2, 0.3], "catalog://none", [2**40, 1],
    "http://localhost:1/x.pth#sha256=0", "float16", "('a', 'b')", "x" * 5000,
)  # fmt: skip


def rng_of(*key: object) -> np.random.Generator:
    """A generator that depends on the key alone, on every machine."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def mutate_bytes(data: bytes, rng: np.random.Generator, *, other: bytes = b"") -> bytes:
    """One to three changes: flipped bits, telling numbers, cuts, moved, doubled and foreign pieces."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        size = max(len(result), 1)
        at, length = int(rng.integers(size)), int(rng.integers(1, 1 + min(size, 64)))
        match int(rng.integers(9)):
            case 0 | 1:
                for place in rng.integers(size, size=int(rng.integers(1, 5))):
                    result[place : place + 1] = bytes([result[place] ^ 1 << int(rng.integers(8))]) if result else b"\0"
            case 2 | 3:
                magic = _MAGIC[int(rng.integers(len(_MAGIC)))]
                result[at : at + len(magic)] = magic
            case 4:
                del result[at:]
            case 5:
                del result[at : at + length]
            case 6:
                result[at:at] = result[at : at + length] * int(rng.integers(1, 5))
            case 7:
                result[at:at] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
            case 8:
                start = int(rng.integers(max(len(other), 1)))
                result[at : at + length] = other[start : start + length]
    return bytes(result)


def places(value: Any, path: tuple[Any, ...] = (), *, most: int | None = None) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a tree of dicts and lists; of each list in the first ``most`` items, or in all."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:most]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key), most=most)


def changed(tree: Any, path: tuple[Any, ...], value: Any = None, *, remove: bool = False) -> Any:
    """The tree with one place changed, or without it."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    if remove:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return tree


def mutate_tree(tree: Any, rng: np.random.Generator) -> Any:
    """One to three places with a wrong value, without one, with another's, or doubled under another name."""
    for _ in range(int(rng.integers(1, 4))):
        where = list(places(tree))
        if not where:
            return tree
        path = where[int(rng.integers(len(where)))]
        choice = int(rng.integers(8))
        if choice == 0:
            tree = changed(tree, path, remove=True)
        elif choice == 1:
            source = where[int(rng.integers(len(where)))]
            value = tree
            for key in source:
                value = value[key]
            tree = changed(tree, path, copy.deepcopy(value))
        elif choice == 2 and isinstance(path[-1], str):
            tree = changed(tree, (*path[:-1], path[-1] + "S"), 1)
        else:
            tree = changed(tree, path, WRONG[int(rng.integers(len(WRONG)))])
    return tree


# Values of the type that a key has, which are wrong all the same.
_LIKE: dict[type, tuple[Any, ...]] = {
    bool: (True, False),
    int: (-1, 0, 1, 3, 7, 2**31, 2**62, -(2**40), 10**6),
    float: (-1.0, 0.0, 1e-30, 1e300, math.inf, -math.inf, 2.5),
    str: ("", " ", "x", "R-50-FPN", "a\0b", "../x", "$(touch pwned)", "~nobody/x", "é", "x" * 5000, "catalog://none"),
}


def like(value: Any, rng: np.random.Generator) -> Any:
    """Another value of the same type; of a list, or of a text that stands for one, other items or another length."""
    if isinstance(value, str) and value.startswith(("(", "[")):
        try:
            value = list(ast.literal_eval(value))
        except (SyntaxError, ValueError, TypeError):
            return ""
    if isinstance(value, (list, tuple)):
        items = list(value)
        match int(rng.integers(4)):
            case 0:
                return items[: int(rng.integers(len(items) + 1))]
            case 1:
                return items * int(rng.integers(2, 4))
            case _ if items:
                at = int(rng.integers(len(items)))
                items[at] = like(items[at], rng)
        return items
    choices = _LIKE.get(type(value), WRONG)
    return choices[int(rng.integers(len(choices)))]


def mutate_keys(tree: dict[str, Any], defaults: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A tree with one or two of all keys that there are set to other values of their type."""
    leaves = [path for path in places(defaults) if all(isinstance(key, str) for key in path)]
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 3))):
        path = leaves[int(rng.integers(len(leaves)))]
        value: Any = defaults
        for key in path:
            value = value[key]
        if isinstance(value, dict):
            continue
        node = tree
        for key in path[:-1]:
            if not isinstance(node.get(key), dict):
                node[key] = {}
            node = node[key]
        node[path[-1]] = like(node.get(path[-1], value), rng)
    return tree


def as_yaml(tree: Any) -> bytes:
    """A tree as YAML, with everything that plain YAML can say."""
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_json(tree: Any) -> bytes:
    """A tree as JSON, and where it is not JSON as programs write it all the same: NaN, Infinity."""
    return json.dumps(tree, default=str).encode("utf-8", "surrogatepass")
