"""Test-time augmentation as TEST.BBOX_AUG asks for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.data.views import ImageViews
from maskrcnn_benchmark.engine.bbox_aug import BoxAugmentation
from maskrcnn_benchmark.structures.image_list import ImageList


def make_box_augmentation(
    cfg: CfgNode, model: nn.Module, prepare: Callable[[ImageList], ImageList], *, keep_pixels: bool = False
) -> BoxAugmentation | None:
    """What detects in place of the model, on pictures as they are in the files; None without TEST.BBOX_AUG.ENABLED.

    Args:
        cfg: reads TEST.BBOX_AUG, INPUT and DATALOADER.SIZE_DIVISIBILITY.
        model: not wrapped.
        prepare: a batch -> the network's input on its device.
        keep_pixels: ``prepare`` is given bytes, which it normalises.
    """
    if not cfg.TEST.BBOX_AUG.ENABLED:
        return None
    return BoxAugmentation(model, ImageViews.from_config(cfg, keep_pixels=keep_pixels), prepare)
