"""Data sets: COCO, Pascal VOC, Cityscapes, labelme, YOLO, instance masks, image lists, and several as one."""

from __future__ import annotations

import importlib
from typing import Any

from maskrcnn_benchmark.data.datasets.coco import COCODataset
from maskrcnn_benchmark.data.datasets.concat_dataset import ConcatDataset
from maskrcnn_benchmark.data.datasets.list_dataset import ListDataset

# Read when they are asked for: most runs need one format.
_MODULES = {
    "CityScapesDataset": "cityscapes",
    "InstancePNGDataset": "instance_png",
    "LabelmeDataset": "labelme",
    "LooseCOCODataset": "loose_coco",
    "PascalVOCDataset": "voc",
    "VOCXmlDataset": "voc_folder",
    "YOLODataset": "yolo",
}

__all__ = [
    "COCODataset", "CityScapesDataset", "ConcatDataset", "InstancePNGDataset", "LabelmeDataset", "ListDataset",
    "LooseCOCODataset", "PascalVOCDataset", "VOCXmlDataset", "YOLODataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
