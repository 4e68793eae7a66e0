"""Image ids that are looked up when they are asked for: lists and dicts of them would be copied into every process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

_BLOCK = 4096


class ImageIds(Sequence[Any]):
    """The ids of the images of a data set, in its order; equal to a list of the same ids.

    Args:
        rows: integers [n], what an id is looked up by.
        look_up: the ids of some rows.
    """

    def __init__(self, rows: np.ndarray, look_up: Callable[[np.ndarray], list[Any]]) -> None:
        self._rows = rows
        self._look_up = look_up

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._look_up(self._rows[index])
        return self._look_up(self._rows[[index]])[0]

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self), _BLOCK):
            yield from self[begin : begin + _BLOCK]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __repr__(self) -> str:
        return repr(list(self)) if len(self) <= 10 else f"[{', '.join(map(repr, self[:10]))}, ...]"


class IndexMap(Mapping[int, Any]):
    """Positions 0, 1, ... of a sequence to its items, read-only."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self._items):
            raise KeyError(index)
        return self._items[index]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._items)))
