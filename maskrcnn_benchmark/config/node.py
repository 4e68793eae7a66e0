"""The config tree: yacs' CfgNode with errors that say which key, where it was set and what was probably meant."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yacs.config

from maskrcnn_benchmark.utils.plain_yaml import read_yaml

# Two published names of one value. Whichever a file or an override sets is copied to the other.
ALIASES = (("MODEL.BACKBONE.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS"),)

# Keys whose values may be of another type than the default.
EXTRA_TYPES: dict[str, tuple[type, ...]] = {
    "INPUT.MIN_SIZE_TRAIN": (int, tuple),
    "SOLVER.BIAS_LR_FACTOR": (int, float),
    "SOLVER.WEIGHT_DECAY_BIAS": (int, float),
    "MODEL.RPN.STRADDLE_THRESH": (int, float),
    "MODEL.RPN.MIN_SIZE": (int, float),
    "TEST.EXPECTED_RESULTS_SIGMA_TOL": (int, float),
}

# A key of a config file that names another one, which is merged first: a path seen from the file, or from here.
BASE_KEY = "_BASE_"

# Keys that hold a tuple of names: one bare name stands for a tuple of one.
NAME_TUPLES = frozenset({"DATASETS.TRAIN", "DATASETS.TEST", "DATASETS.CLASSES", "TRACKING.BACKENDS", "TRACKING.TAGS"})


# A longer text is no literal that somebody typed, and the compiler that reads literals has its limits.
_LONGEST_LITERAL = 1 << 16
_LONGEST_QUOTE = 200  # characters of a value in a message
_LONGEST_KEY = 200  # for which another is looked for that was meant
_LARGEST_INTEGER = 1 << 63
_PLAIN = (tuple, list, str, int, float, bool, type(None))

# The attribute of a tree that holds where its values come from.
_SOURCES = "__sources__"


class ConfigKeyError(KeyError):
    """A config key that does not exist. Unlike KeyError it prints its message without quotes."""

    def __str__(self) -> str:
        return str(self.args[0])


class CfgNode(yacs.config.CfgNode):
    """yacs' CfgNode whose merges are all-or-nothing and whose errors name the key, the source and the remedy.

    Differences from plain yacs, all of them acceptance of more input: an int where a float is expected, a bare name for
    DATASETS.TRAIN and DATASETS.TEST, ``true`` and ``false`` in any case on the command line, digits for a text.
    """

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file (or, as in yacs, a Python file with a ``cfg``), after the files that it is based on.

        Raises FileNotFoundError, ValueError (broken YAML, wrong type) or KeyError (unknown key), each naming the file.
        """
        path = Path(cfg_filename)
        if path.suffix == ".py":
            trees = [(path, _run_config(path))]
        else:
            trees = _with_bases(path)
        targets = [self.clone(), self] if len(trees) > 1 else [self]  # the first one finds what is wrong
        for target in targets:
            for file, tree in trees:
                source = f"config file {file}"
                target._merge_pairs(list(_leaves(tree)), source=source, is_base=file != path)

    def merge_from_other_cfg(self, cfg_other: yacs.config.CfgNode | dict[str, Any]) -> None:
        """Merge another tree. Raises KeyError for unknown keys and ValueError for wrong types."""
        self._merge_pairs(list(_leaves(cfg_other)), source="the merged config")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge ``[key, value, key, value, ...]``, as typed after a command.

        Raises ValueError for an odd number of items or a wrong type, KeyError for an unknown key.
        """
        if len(cfg_list) % 2:
            items = " ".join(map(_quote, cfg_list))
            raise ValueError(f"overrides come as pairs KEY VALUE, but there are {len(cfg_list)} items: {items}")
        self._merge_pairs(list(zip(cfg_list[0::2], cfg_list[1::2], strict=True)), source="the overrides")

    def keys_below(self) -> list[str]:
        """Return the dotted names of all leaves."""
        return [key for key, _ in _leaves(self)]

    def source_of(self, full_key: str) -> str | None:
        """What merged this key last, such as "the overrides"; None: nothing but files that the others are based on."""
        return self.__dict__.get(_SOURCES, {}).get(full_key)

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        """As yacs does it: a text that is a Python literal stands for its value; every other stays a text."""
        if isinstance(value, str) and len(value) > _LONGEST_LITERAL:
            return value
        try:
            return super()._decode_cfg_value(value)
        except (MemoryError, RecursionError, TypeError):  # brackets, signs and keys that the compiler gives up on
            return value

    def _merge_pairs(self, pairs: Sequence[tuple[str, Any]], *, source: str, is_base: bool = False) -> None:
        """Check every (dotted key, raw value), then write them all; nothing is written when one is wrong."""
        updates: list[tuple[CfgNode, str, Any]] = []
        values: dict[str, Any] = {}
        for full_key, raw in pairs:
            if self.key_is_deprecated(full_key):
                continue
            if self.key_is_renamed(full_key):
                self.raise_key_rename_error(full_key)
            node, leaf = self._find(full_key, source=source)
            value = _checked_value(self, raw, node.get(leaf), full_key=full_key, known=leaf in node, source=source)
            updates.append((node, leaf, value))
            values[full_key] = value
        for first, second in ALIASES:
            if first in values and second in values and values[first] != values[second]:
                raise ValueError(
                    f"{source}: {first} ({values[first]}) and {second} ({values[second]}) are two names of one value "
                    f"and must not differ; set only {first}"
                )
            for given, other in ((first, second), (second, first)):
                if given in values and other in self.keys_below():
                    updates.append((*self._find(other, source=source), values[given]))
        for node, leaf, value in updates:
            node[leaf] = value
        if not is_base:
            self.__dict__.setdefault(_SOURCES, {}).update(dict.fromkeys(values, source))

    def _find(self, full_key: str, *, source: str) -> tuple[CfgNode, str]:
        """Return the node that holds ``full_key`` and the key's last part; makes nodes where new keys are allowed."""
        *path, leaf = str(full_key).split(".")
        node: Any = self
        for part in path:
            if isinstance(node, yacs.config.CfgNode) and part not in node and node.is_new_allowed():
                node[part] = type(self)(new_allowed=True)
            if not isinstance(node, yacs.config.CfgNode) or part not in node:
                raise _unknown_key(self, full_key, source=source)
            node = node[part]
        if not isinstance(node, yacs.config.CfgNode) or (leaf not in node and not node.is_new_allowed()):
            raise _unknown_key(self, full_key, source=source)
        return node, leaf


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file is an empty mapping."""
    if not path.is_file():
        raise FileNotFoundError(f"config file {path} does not exist")
    tree = read_yaml(path, f"config file {path}")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"config file {path} must hold keys with values, but holds a {type(tree).__name__}")
    return tree


def _run_config(path: Path) -> yacs.config.CfgNode:
    """The ``cfg`` of a Python file, which is run: whoever names one on the command line wants that."""
    try:
        with path.open(encoding="utf-8") as file:
            return yacs.config.CfgNode.load_cfg(file)
    except OSError:
        raise
    except Exception as error:  # whatever a user's file raises
        raise ValueError(f"config file {path} cannot be run: {type(error).__name__}: {error}") from error


def _with_bases(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """A YAML file behind the files that it is based on, each with what it holds.

    Raises FileNotFoundError or ValueError where one cannot be read, or they go in a circle.
    """
    files: list[tuple[Path, dict[str, Any]]] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in (file.resolve() for file, _ in files):
            raise ValueError(f"config file {path}: {BASE_KEY} leads back to {current}")
        tree = _read_yaml(current)
        base = tree.pop(BASE_KEY, None)
        files.insert(0, (current, tree))
        if base is None:
            return files
        name = os.path.expanduser(base) if isinstance(base, str) else ""
        places = [current.parent / name, Path(name)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"config file {current}: {BASE_KEY} {_quote(base)} does not exist, neither beside this file nor in "
                f"{Path.cwd()}"
            )
        current = found
    return files


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf; an empty section yields nothing."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_key(root: CfgNode, full_key: str, *, source: str) -> ConfigKeyError:
    """Build the error for a key that is not in the tree, with the nearest key that is."""
    known = root.keys_below()
    full_key = _quote(full_key)
    wanted = full_key.upper()
    same_leaf = [key for key in known if key.rpartition(".")[2] == wanted.rpartition(".")[2]]  # in another section
    if len(wanted) > _LONGEST_KEY:
        return ConfigKeyError(f"{source}: there is no config key {full_key}")
    near = difflib.get_close_matches(wanted, same_leaf, cutoff=0.0) or difflib.get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ConfigKeyError(f"{source}: there is no config key {full_key}{hint}")


def _quote(value: Any) -> str:
    """A value in a message, in one line however long it is; texts stand without quotes."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a {type(value).__name__} that is too long to print"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}... ({len(text)} characters)"


def _wild_number(value: Any) -> str:
    """What is wrong with a number, or with one in a list; "" for nothing."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, int) and not -_LARGEST_INTEGER <= item < _LARGEST_INTEGER:
            return "an integer of more than 64 bits"
        elif isinstance(item, float) and math.isnan(item):
            return "not a number (NaN)"
    return ""


def _checked_value(root: CfgNode, raw: Any, default: Any, *, full_key: str, known: bool, source: str) -> Any:
    """Turn a raw value into one of the type that the key holds, or raise ValueError."""
    if full_key in NAME_TUPLES and isinstance(raw, str):
        return tuple(name.strip(" '\"") for name in raw.strip("()[] ").split(",") if name.strip(" '\""))
    if isinstance(default, yacs.config.CfgNode):
        raise ValueError(f"{source}: {full_key} is a section of keys and cannot be set to {_quote(raw)}")
    try:
        value = root._decode_cfg_value(raw)
    except AssertionError as error:  # yacs' own check of what is in a dict
        raise ValueError(f"{source}: {full_key} cannot be set to {_quote(raw)}: {_quote(str(error))}") from error
    if not (isinstance(default, str) and isinstance(raw, str)) and (wild := _wild_number(value)):
        raise ValueError(f"{source}: {full_key} is {wild}")
    if not known or default is None:
        if type(value) not in _PLAIN and not isinstance(value, yacs.config.CfgNode):
            raise ValueError(f"{source}: {full_key} cannot be a {type(value).__name__}, such as {_quote(value)}")
        return value
    for wanted in (type(default), *EXTRA_TYPES.get(full_key, ())):
        fits, converted = _convert(value, raw, wanted)
        if fits:
            return converted
    names = " or ".join(dict.fromkeys(t.__name__ for t in (type(default), *EXTRA_TYPES.get(full_key, ()))))
    raise ValueError(
        f"{source}: {full_key} must be of type {names} (such as {default!r}), "
        f"but is {_quote(raw)!r} of type {type(value).__name__}"
    )


def _convert(value: Any, raw: Any, wanted: type) -> tuple[bool, Any]:
    """Return (True, value as ``wanted``) if the value can stand for that type, else (False, None)."""
    if type(value) is wanted:
        return True, value
    if wanted in (list, tuple) and isinstance(value, (list, tuple)):
        return True, wanted(value)
    if wanted is float and type(value) is int:
        return True, float(value)
    if wanted is str and isinstance(raw, str):  # OUTPUT_DIR 2024 is a folder's name, not a number
        return True, raw
    if wanted is bool and isinstance(raw, str) and raw.lower() in ("true", "false"):
        return True, raw.lower() == "true"
    return False, None
