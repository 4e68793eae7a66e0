"""Decode a batch with torchvision's nvJPEG decoder; scale, mirror and pad it with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn_benchmark.data.loaders.device_images import DeviceImages, OwnStream
from maskrcnn_benchmark.data.loaders.encoded import EncodedBatch, UndecodableError
from maskrcnn_benchmark.structures.image_list import ImageList


class NvjpegDecoder:
    """Turns encoded batches into pixels. It may be called from several threads.

    Args:
        device: a CUDA device with its number.
        decode: files uint8 [B_n] to RGB pixels uint8 [3, H_n, W_n] on the device; None takes torchvision's decoder.
    """

    def __init__(
        self, device: torch.device, *, decode: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None
    ) -> None:
        self.device = device
        self.decode = decode or self._decode
        self.own_stream = OwnStream(device)

    def __call__(self, batch: EncodedBatch) -> ImageList:
        """Pixels uint8 [N, 3, H, W] in channels_last order, BGR, zeros beside and below each image.

        Raises:
            UndecodableError: when torchvision cannot decode one of the files.
        """
        with self.own_stream():
            out = torch.zeros((len(batch), *batch.shape, 3), dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
            sizes = batch.targets.image_sizes
            images = self.decode(batch.files())
            for padded, image, size, mirrored in zip(out, images, sizes, batch.mirrored, strict=True):
                padded[:, : size[0], : size[1]].copy_(scaled(image, size, mirrored).flip(0))  # RGB to BGR
            return DeviceImages(out, sizes)

    def _decode(self, files: Sequence[Tensor]) -> Sequence[Tensor]:
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            return decode_jpeg(list(files), mode=ImageReadMode.RGB, device=self.device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise UndecodableError(str(error).splitlines()[0]) from error


def scaled(image: Tensor, size: tuple[int, int], mirrored: tuple[bool, bool]) -> Tensor:
    """An image scaled as OpenCV's INTER_LINEAR does, up to its rounding, and then mirrored.

    Args:
        image: uint8 [C, H, W].
        size: the new (height, width).
        mirrored: left to right, top to bottom.

    Returns:
        [C, *size] of whole numbers in 0 .. 255.
    """
    if tuple(image.shape[1:]) != tuple(size):
        image = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)[0].round_()
    dims = [dim for dim, is_mirrored in zip((2, 1), mirrored, strict=True) if is_mirrored]
    return image.flip(dims) if dims else image
