"""Lists of class names, as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Names with which lists of labelme begin.
_NO_CLASSES = ("__ignore__", "_background_", "__background__")


def check_names(names: Iterable[object], source: str) -> tuple[str, ...]:
    """Class names as a tuple.

    Args:
        names: in the order of the labels.
        source: where they come from, for messages.

    Raises:
        ValueError: when there is none, one is empty, or one is given twice.
    """
    checked = tuple(str(name).strip() for name in names)
    twice = [name for number, name in enumerate(checked) if name in checked[:number]]
    if not checked or not all(checked) or twice:
        what = f"{twice[0]!r} is listed twice" if twice else "there is no name" if not checked else "a name is empty"
        raise ValueError(f"{source}: {what}; list each class once")
    return checked


def read_class_names(classes: str | Path | Iterable[object]) -> tuple[str, ...]:
    """Class names given as a list, or as a text file with one a line; names of a background are passed over.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: see :func:`check_names`.
    """
    if not isinstance(classes, (str, Path)):
        return check_names(classes, "classes")
    try:
        lines = Path(classes).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"list of classes {classes} does not exist") from None
    names = [line.strip() for line in lines if line.strip() and line.strip() not in _NO_CLASSES]
    return check_names(names, f"list of classes {classes}")
