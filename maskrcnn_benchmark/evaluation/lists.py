"""COCO result lists that are made when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .columns import Detections


class CocoLists(Mapping[str, list[dict[str, Any]]]):
    """Result lists by IoU type, kept as columns; a list takes ten times their memory, so it is made anew each time.

    Args:
        columns: the results.
    """

    def __init__(self, columns: Mapping[str, Detections]) -> None:
        self.columns = dict(columns)

    def __getitem__(self, iou_type: str) -> list[dict[str, Any]]:
        return self.columns[iou_type].to_list()

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"CocoLists({', '.join(f'{name}: {len(own)}' for name, own in self.columns.items())})"
