"""The transforms that a config asks for."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.data.transforms.colour import ColourJitter
from maskrcnn_benchmark.data.transforms.normalize import Normalize
from maskrcnn_benchmark.data.transforms.transforms import Compose, Flip, Resize


def build_transforms(cfg: CfgNode, is_train: bool = True) -> Compose:
    """The transforms of training (with augmentation) or of testing.

    Args:
        cfg: reads INPUT and SEED.
        is_train: which of the two.

    Raises:
        ValueError: when a strength of colour augmentation is out of range, or a size is not positive.
    """
    phase = "TRAIN" if is_train else "TEST"
    sizes = getattr(cfg.INPUT, f"MIN_SIZE_{phase}")
    sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"INPUT.MIN_SIZE_{phase} must hold one or more positive lengths in pixels, got {sizes}")
    geometry: list[Resize | Flip] = [Resize(sizes, getattr(cfg.INPUT, f"MAX_SIZE_{phase}"))]
    colour = None
    if is_train:
        colour = ColourJitter(cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST, cfg.INPUT.SATURATION, cfg.INPUT.HUE) or None
        geometry.append(Flip(cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN))
        geometry.append(Flip(cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN, vertical=True))
    normalize = Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, to_bgr255=cfg.INPUT.TO_BGR255)
    return Compose(geometry, normalize, seed=cfg.SEED, colour=colour)


class ImagePreparer:
    """One image to the network's input, exactly as the test loader makes it.

    Args:
        transforms: the transforms of testing.
    """

    def __init__(self, transforms: Compose) -> None:
        self.transforms = transforms

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ImagePreparer:
        """The preparer of a config's test settings (INPUT)."""
        return cls(build_transforms(cfg, is_train=False))

    def __call__(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Resize and normalise.

        Args:
            image: uint8 [H, W, 3], BGR, as OpenCV reads it.

        Returns:
            float32 [3, H', W'] and its size (H', W').

        Raises:
            ValueError: when ``image`` is not such an array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"an image must be uint8 [H, W, 3] in BGR, got {image.dtype} {list(image.shape)}")
        tensor, _ = self.transforms(image, None)
        return tensor, (tensor.shape[1], tensor.shape[2])
