"""Data sets: COCO's format, plain image lists, and several data sets as one."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.data.datasets.coco import COCODataset
from maskrcnn_benchmark.data.datasets.concat_dataset import ConcatDataset
from maskrcnn_benchmark.data.datasets.list_dataset import ListDataset

__all__ = ["COCODataset", "ConcatDataset", "ListDataset", "PascalVOCDataset"]


class PascalVOCDataset:
    """Data sets in Pascal VOC's format; not there yet.

    Raises:
        ValueError: always; it names the way that works today.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError(
            "data sets in Pascal VOC's format are not supported yet; convert the annotations to COCO's format and "
            "use the name that ends in _cocostyle, or DATASETS.CUSTOM"
        )
