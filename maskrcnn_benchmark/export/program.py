"""The network as a function of tensors of fixed shapes, and as a program of torch.export.

Letters: N images, H W the canvas on which they lie, D slots of an image, K classes with background.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from maskrcnn_benchmark.export.portable import PortableOps
from maskrcnn_benchmark.ops.normalize_images import normalize_images_reference

INPUT_NAMES = ("images", "image_sizes")


@dataclass(frozen=True)
class InputShape:
    """What a program takes.

    Attributes:
        batch: N.
        height, width: of the canvas, pixels.
        takes_pixels: uint8 pixels as OpenCV reads them, normalised in the program; otherwise float32 that is normalised
            already, zero beside and below each image.
    """

    batch: int
    height: int
    width: int
    takes_pixels: bool = True

    def example(self) -> tuple[Tensor, Tensor]:
        """Return images [N, 3, H, W] and their sizes int64 [N, 2] with which a program can be traced."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.batch, 3, self.height, self.width), generator=generator, dtype=torch.uint8)
        sizes = torch.tensor([[self.height, self.width]]).repeat(self.batch, 1)
        return (images if self.takes_pixels else images.float() - 128), sizes


class FixedShapeDetector(nn.Module):
    """Pictures to detections without anything but tensors, and without a shape that depends on what is found.

    Args:
        model: of `build_detection_model`, with a method detect_slots; it is put into evaluation mode.
        mean, std: float32 [3] of the network's channels; None as std does not divide.
        reverse: turn BGR into RGB first.
    """

    def __init__(self, model: nn.Module, *, mean: Tensor, std: Tensor | None = None, reverse: bool = False) -> None:
        super().__init__()
        self.model = model
        self.reverse = reverse
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.eval()

    def forward(self, images: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        """Detect.

        Args:
            images: [N, 3, H, W], each image in the top left corner: uint8 pixels in BGR, or float32, normalised and
                zero beside and below the image.
            image_sizes: int64 [N, 2] (height, width) of the images.

        Returns:
            boxes [N, D, 4] float32 (x1, y1, x2, y2) in inclusive pixels of the canvas, scores [N, D], labels int64
            [N, D] from 1 to K - 1 (not from a network that only proposes), valid bool [N, D], and what the heads give
            for each slot: masks [N, D, M, M] probabilities, keypoint_maps [N, D, P, M, M] logits. Best first; an empty
            slot holds zeros.
        """
        if images.dtype == torch.uint8:
            images = normalize_images_reference(images, image_sizes, self.mean, self.std, self.reverse, False)
        fields = self.model.detect_slots(images, image_sizes)
        empty = ~fields["valid"]
        return {
            name: tensor
            if name == "valid"
            else tensor.masked_fill(empty.reshape(*empty.shape, *[1] * (tensor.dim() - 2)), 0)
            for name, tensor in fields.items()
        }


def export_program(detector: FixedShapeDetector, shape: InputShape, *, portable: bool = False) -> ExportedProgram:
    """Trace a detector for one shape.

    Args:
        detector: of the network.
        shape: of the inputs; another one makes the program raise.
        portable: take the package's own ops apart, so that the program can be loaded where the package is not
            installed, bit for bit the same, but slower. Otherwise ``import maskrcnn_benchmark.ops`` must come before.

    Raises:
        ValueError: a portable program of a network whose ROIAlign adapts its sampling to the boxes, or with an op that
            has no portable form.
        TypeError: a head that cannot work in fixed slots, see `CombinedROIHeads`.
    """
    with torch.no_grad(), PortableOps() if portable else contextlib.nullcontext():
        return torch.export.export(detector, shape.example())
