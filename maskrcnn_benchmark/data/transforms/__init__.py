"""From a decoded image to the network's input, and the same for its objects."""

from __future__ import annotations

from maskrcnn_benchmark.data.transforms.build import ImagePreparer, build_transforms
from maskrcnn_benchmark.data.transforms.colour import ColourJitter
from maskrcnn_benchmark.data.transforms.normalize import DeviceNormalize, Normalize
from maskrcnn_benchmark.data.transforms.pending import PendingImage
from maskrcnn_benchmark.data.transforms.transforms import Compose, Flip, Resize

__all__ = [
    "ColourJitter",
    "Compose",
    "DeviceNormalize",
    "Flip",
    "ImagePreparer",
    "Normalize",
    "PendingImage",
    "Resize",
    "build_transforms",
]
