"""Values of env.yaml and config.yaml, which may come as text whatever they mean."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn_benchmark.utils.plain_yaml import read_yaml
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

_TRUE, _FALSE = ("true", "t", "1", "yes", "on"), ("false", "f", "0", "no", "off", "", "none", "null")


def read_keys(path: str, what: str) -> dict[str, Any]:
    """The keys and values of a YAML file; ``what`` it is, for messages.

    Raises:
        JobError: it is missing or holds something else.
    """
    try:
        tree = read_yaml(path, f"{what} {path}")
    except (OSError, ValueError) as error:
        raise JobError(ReturnCode.CONFIG, f"the {what} {path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise JobError(ReturnCode.CONFIG, f"the {what} {path} must hold keys and values, not {str(tree)[:80]!r}")
    return {str(key): value for key, value in tree.items()}


def to_flag(value: Any, key: str) -> bool:
    """A truth value.

    Raises:
        JobError: it is none.
    """
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise JobError(ReturnCode.CONFIG, f"{key} must be true or false, got {value!r}")


def to_number(value: Any, key: str) -> float:
    """A finite number.

    Raises:
        JobError: it is none.
    """
    try:
        number = float(str(value).strip()) if not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise JobError(ReturnCode.CONFIG, f"{key} must be a number, got {value!r}")
    return number


def to_integer(value: Any, key: str) -> int:
    """A whole number; "4000.0" is one.

    Raises:
        JobError: it is none.
    """
    number = to_number(value, key)
    if number != int(number):
        raise JobError(ReturnCode.CONFIG, f"{key} must be a whole number, got {value!r}")
    return int(number)


def to_names(value: Any) -> list[str]:
    """The entries of a list, or of a text with commas between them; stripped, without empty ones."""
    parts = value if isinstance(value, (list, tuple)) else str(value if value is not None else "").split(",")
    return [text for text in (str(part).strip() for part in parts) if text]
