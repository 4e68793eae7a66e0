"""Pictures as an exported program takes them, and how near two programs come to one another on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.predict_files import find_images, read_upright
from maskrcnn_benchmark.data.transforms.normalize import DeviceNormalize, Normalize
from maskrcnn_benchmark.data.transforms.transforms import resized_size
from maskrcnn_benchmark.export.program import InputShape
from maskrcnn_benchmark.structures.image_list import ImageList

Arrays = Mapping[str, np.ndarray]


class CanvasPreparer:
    """Pictures to the inputs of an exported program.

    Args:
        shape: of the program.
        min_size, max_size: as of testing, see `resized_size`; smaller where the canvas is.
        normalize: what the network expects.
    """

    def __init__(self, shape: InputShape, *, min_size: int, max_size: int, normalize: Normalize) -> None:
        self.shape = shape
        self.min_size = min_size
        self.max_size = max_size
        self.normalize = DeviceNormalize(normalize, "cpu")

    @classmethod
    def from_config(cls, cfg: CfgNode, shape: InputShape) -> CanvasPreparer:
        """The preparer of a config's test settings (INPUT)."""
        normalize = Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, to_bgr255=cfg.INPUT.TO_BGR255)
        return cls(shape, min_size=cfg.INPUT.MIN_SIZE_TEST, max_size=cfg.INPUT.MAX_SIZE_TEST, normalize=normalize)

    def size_on_canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) to which a picture of (height, width) is scaled."""
        height, width = resized_size(size, min_size=self.min_size, max_size=self.max_size)
        shrink = min(self.shape.height / height, self.shape.width / width, 1.0)
        return (height, width) if shrink == 1 else (max(int(height * shrink), 1), max(int(width * shrink), 1))

    def __call__(self, pictures: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return images and image_sizes, the inputs of a program, for up to N pictures uint8 [H, W, 3] in BGR."""
        shape = self.shape
        pixels = np.zeros((shape.batch, shape.height, shape.width, 3), np.uint8)
        sizes = np.ones((shape.batch, 2), np.int64)
        for canvas, size, picture in zip(pixels, sizes, pictures, strict=False):
            height, width = self.size_on_canvas(picture.shape[:2])
            if picture.shape[:2] != (height, width):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
            canvas[:height, :width] = picture
            size[:] = height, width
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        batch = ImageList(images, [], torch.from_numpy(sizes))
        return (batch if shape.takes_pixels else self.normalize(batch, torch.contiguous_format)).tensors, batch.sizes

    def batches(self, inputs: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the program's inputs for files, folders and glob patterns.

        Raises:
            FileNotFoundError: an input matches no picture. ValueError, OSError: a picture cannot be read.
        """
        paths = find_images(inputs)
        for start in range(0, len(paths), self.shape.batch):
            yield self([read_upright(path) for path in paths[start : start + self.shape.batch]])


@dataclass
class Agreement:
    """How near the detections of two programs come to one another.

    Attributes:
        detections: of the first one.
        unmatched: detections of either one without a partner.
        box, score, mask: largest differences of partners: pixels, score, and probability of a mask.
    """

    detections: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.detections} detections, {self.unmatched} without a partner; largest differences: "
            f"box {self.box:.4f} pixels, score {self.score:.6f}, mask {self.mask:.6f}"
        )


def compare(pairs: Iterable[tuple[Arrays, Arrays]], *, reach: float = 2.0, min_score: float = 0.0) -> Agreement:
    """Compare outputs of two programs on the same inputs, image by image.

    Args:
        pairs: outputs by name, as `FixedShapeDetector.forward` returns them, of the first and the second program.
        reach: partners have the same label and corners no further apart than this, in pixels; the nearest is taken.
        min_score: detections of lower scores in both programs do not count.
    """
    result = Agreement()
    for first, second in pairs:
        for image in range(len(first["valid"])):
            ours, theirs = (_filled(each, image, min_score) for each in (first, second))
            _compare_image(ours, theirs, reach, result)
    return result


def _filled(outputs: Arrays, image: int, min_score: float) -> Arrays:
    """Return the filled slots of one image whose score is not below min_score."""
    wanted = outputs["valid"][image] & (outputs["scores"][image] >= min_score)
    return {name: values[image][wanted] for name, values in outputs.items()}


def _compare_image(ours: Arrays, theirs: Arrays, reach: float, result: Agreement) -> None:
    """Add what one image shows to the result."""
    result.detections += len(ours["boxes"])
    distance = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(axis=2)
    if "labels" in ours:
        distance = np.where(ours["labels"][:, None] == theirs["labels"][None], distance, np.inf)
    # A box may be there twice, with two scores: among equally near ones the score decides.
    order = np.where(distance <= reach, distance + np.abs(ours["scores"][:, None] - theirs["scores"][None]), np.inf)
    partners = []
    while order.size and np.isfinite(order.min()):
        row, column = np.unravel_index(order.argmin(), order.shape)
        partners.append((row, column))
        order[row], order[:, column] = np.inf, np.inf
    result.unmatched += len(ours["boxes"]) + len(theirs["boxes"]) - 2 * len(partners)
    for row, column in partners:
        result.box = max(result.box, float(distance[row, column]))
        result.score = max(result.score, float(abs(ours["scores"][row] - theirs["scores"][column])))
        if "masks" in ours:
            result.mask = max(result.mask, float(np.abs(ours["masks"][row] - theirs["masks"][column]).max()))
