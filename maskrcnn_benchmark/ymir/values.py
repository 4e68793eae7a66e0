"""Values of env.yaml and config.yaml, which may come as text whatever they mean."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

_TRUE, _FALSE = ("true", "t", "1", "yes", "on"), ("false", "f", "0", "no", "off", "", "none", "null")


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
