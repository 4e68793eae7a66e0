"""The views of a picture in which test-time augmentation looks for objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.data.collate_batch import pack_targets
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.transforms import Flip, Normalize, Resize, build_transforms
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.targets import Targets


def collate_pictures(
    batch: Sequence[tuple[np.ndarray, ImageTargets, int]],
) -> tuple[list[np.ndarray], Targets, tuple[int, ...]]:
    """Samples to a batch for `ImageViews`: the pictures uint8 [H, W, 3] as they are, objects and indices packed."""
    pictures, targets, indices = zip(*batch, strict=True)
    return list(pictures), pack_targets(targets), indices


class View(NamedTuple):
    """How a picture is shown to the network."""

    min_size: int  # of the shorter side, pixels
    max_size: int  # limit of the longer side
    flipped: bool  # left to right


class ImageViews:
    """Makes the batches of all views of the same pictures, one after another.

    Args:
        views: the first one is that of a test without augmentation.
        normalize: None gives pixels uint8, which `DeviceNormalize` takes.
        size_divisible: see `to_image_list`.
    """

    def __init__(self, views: Sequence[View], *, normalize: Normalize | None = None, size_divisible: int = 0) -> None:
        self.views = tuple(views)
        self.normalize = normalize
        self.size_divisible = size_divisible

    @classmethod
    def from_config(cls, cfg: CfgNode, *, keep_pixels: bool = False) -> ImageViews:
        """The views that TEST.BBOX_AUG asks for.

        Args:
            cfg: reads TEST.BBOX_AUG, INPUT and DATALOADER.SIZE_DIVISIBILITY.
            keep_pixels: leave the normalisation to the device.
        """
        augmentation = cfg.TEST.BBOX_AUG
        plain = View(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, flipped=False)
        views = [plain, *([plain._replace(flipped=True)] if augmentation.H_FLIP else [])]
        for size in augmentation.SCALES:
            views += [
                View(size, augmentation.MAX_SIZE, flipped)
                for flipped in ((False, True) if augmentation.SCALE_H_FLIP else (False,))
            ]
        normalize = None if keep_pixels else build_transforms(cfg, is_train=False).normalize
        return cls(views, normalize=normalize, size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY)

    def __call__(self, pictures: Sequence[np.ndarray]) -> Iterator[tuple[ImageList, bool]]:
        """Yield each view as a batch, and whether it is flipped.

        Args:
            pictures: uint8 [H, W, 3], BGR, as they are in the files.
        """
        for view in self.views:
            resize = Resize((view.min_size,), view.max_size)
            images = [resize(picture, None, 0.0)[0] for picture in pictures]
            if view.flipped:
                images = [Flip(1.0)(image, None, 0.0)[0] for image in images]
            if self.normalize is None:
                tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
            else:
                tensors = [self.normalize(image) for image in images]
            yield to_image_list(tensors, self.size_divisible), view.flipped
