"""What a network's first layers expect of an image, and whether the config gives it."""

from __future__ import annotations

from dataclasses import dataclass

from yacs.config import CfgNode

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageInput:
    """How images reach the network, and where its bottlenecks halve the resolution. None: not known, or any.

    Args:
        to_bgr255: BGR in 0..255 rather than RGB in 0..1.
        pixel_mean: subtracted, a channel each.
        pixel_std: divided by, a channel each.
        stride_in_1x1: in the first 1x1 convolution of a bottleneck rather than in its 3x3 convolution.
    """

    to_bgr255: bool
    pixel_mean: Triple
    pixel_std: Triple | None = None
    stride_in_1x1: bool | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ImageInput:
        """Read INPUT.TO_BGR255, PIXEL_MEAN and PIXEL_STD and MODEL.RESNETS.STRIDE_IN_1X1."""
        return cls(
            to_bgr255=cfg.INPUT.TO_BGR255,
            pixel_mean=tuple(cfg.INPUT.PIXEL_MEAN),
            pixel_std=tuple(cfg.INPUT.PIXEL_STD),
            stride_in_1x1=cfg.MODEL.RESNETS.STRIDE_IN_1X1,
        )

    def changes(self, given: ImageInput) -> str:
        """The keys and values, as they are typed after a command, that turn ``given`` into this; "" for none."""
        keys: list[str] = []
        if given.to_bgr255 != self.to_bgr255:
            keys.append(f"INPUT.TO_BGR255 {self.to_bgr255}")
        # Means of one data set, rounded by different hands, differ by less than a grey level.
        if not _close(given.pixel_mean, self.pixel_mean, 2.0 if self.to_bgr255 else 0.01):
            keys.append(f'INPUT.PIXEL_MEAN "{list(self.pixel_mean)}"')
        if self.pixel_std and given.pixel_std and not _close(given.pixel_std, self.pixel_std, max(self.pixel_std) / 50):
            keys.append(f'INPUT.PIXEL_STD "{list(self.pixel_std)}"')
        if self.stride_in_1x1 not in (None, given.stride_in_1x1):
            keys.append(f"MODEL.RESNETS.STRIDE_IN_1X1 {self.stride_in_1x1}")
        return " ".join(keys)


def _close(left: Triple, right: Triple, tolerance: float) -> bool:
    return len(left) == len(right) and all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


# torchvision trains its backbones on RGB in 0..1, and halves the resolution in the 3x3 convolution.
TORCHVISION_INPUT = ImageInput(False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), stride_in_1x1=False)
# What detectron2 makes of the same backbones, when it converts them itself: the same images in 0..255.
DETECTRON2_INPUT = ImageInput(True, (103.53, 116.28, 123.675))


def caffe2_input(*, stride_in_1x1: bool) -> ImageInput:
    """Caffe2's models: their first convolution has taken the standard deviation in."""
    return ImageInput(True, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), stride_in_1x1)
