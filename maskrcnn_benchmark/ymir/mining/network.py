"""The project's networks as the mining algorithms see them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.modeling.detector.trunk import TrunkOutputs, run_trunk
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import Candidates, suppress_candidates
from maskrcnn_benchmark.structures.bounding_box import WIDTH_OFFSET, BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, padded_size, to_image_list
from maskrcnn_benchmark.ymir.mining.detections import ImageDetections, two_point


class Batch(NamedTuple):
    """Pictures that go through the network together."""

    indices: list[int]  # among those that were given
    images: ImageList


class NetworkDetector:
    """A network of `build_detection_model` as a `Detector`.

    Pictures that are padded to one size share a batch, so that no picture's padding, and with it its score, depends on
    which others it meets. Test-time augmentation (TEST.BBOX_AUG) is left out.

    Args:
        model: in evaluation mode.
        prepare: BGR uint8 [H, W, 3] -> (network input [3, h, w], (h, w)).
        size_divisible: see `to_image_list`.
        batch_size: most pictures in one forward pass.
        score_threshold: only detections with a higher score count.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prepare: Callable[[np.ndarray], tuple[Tensor, tuple[int, int]]],
        size_divisible: int,
        batch_size: int,
        score_threshold: float,
    ) -> None:
        self.model = model
        self.prepare = prepare
        self.size_divisible = size_divisible
        self.batch_size = batch_size
        self.score_threshold = score_threshold
        self.device = next(model.parameters()).device

    @classmethod
    def from_predictor(cls, predictor: Predictor, *, batch_size: int, score_threshold: float) -> NetworkDetector:
        """The network of a predictor, with its way of preparing pictures."""
        return cls(
            predictor.model,
            prepare=predictor.prepare,
            size_divisible=predictor.size_divisible,
            batch_size=batch_size,
            score_threshold=score_threshold,
        )

    @torch.inference_mode()
    def detect(self, images: Sequence[np.ndarray], *, masks: bool = False) -> list[ImageDetections]:
        """Detections of each picture, see `Detector`.

        Raises:
            ValueError: masks are asked of a network without a mask head.
        """
        if masks and not self.has_masks:
            raise ValueError("this network has no mask head")
        results: dict[int, ImageDetections] = {}
        for batch in self._batches(images):
            trunk = self._run_trunk(batch)
            boxlists, distributions = self._detect_batch(batch.images, trunk, masks=masks)
            for index, boxlist, rows in zip(batch.indices, boxlists, distributions, strict=True):
                results[index] = _in_picture(boxlist, rows, images[index].shape[:2])
        return [results[index] for index in range(len(images))]

    @torch.inference_mode()
    def confidence_maps(self, images: Sequence[np.ndarray]) -> list[list[Tensor]]:
        """Logits of each picture: objectness, or of a dense detector those of each class. See `Detector`."""
        results: dict[int, list[Tensor]] = {}
        for batch in self._batches(images):
            logits = self._run_trunk(batch).logits
            padded = batch.images.tensors.shape[-2:]
            for row, (index, size) in enumerate(zip(batch.indices, batch.images.image_sizes, strict=True)):
                levels = [_without_padding(level[row], size, padded) for level in logits]
                results[index] = [level.unflatten(0, (-1, self.num_map_classes)).transpose(0, 1) for level in levels]
        return [results[index] for index in range(len(images))]

    @property
    def num_map_classes(self) -> int:
        """Classes that the confidence maps tell apart: 1 of region proposals, those of the data of a dense detector."""
        return 1 if self.model.roi_heads is not None else self.model.rpn.num_classes

    @property
    def has_masks(self) -> bool:
        """Whether the network predicts masks."""
        return self.model.roi_heads is not None and "mask" in self.model.roi_heads.further_names

    def _batches(self, images: Sequence[np.ndarray]) -> Iterator[Batch]:
        groups: dict[tuple[int, int], list[tuple[int, Tensor]]] = defaultdict(list)
        for index, image in enumerate(images):
            tensor, size = self.prepare(image)
            groups[padded_size([size], self.size_divisible)].append((index, tensor))
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                indices, tensors = zip(*group[start : start + self.batch_size], strict=True)
                batch = to_image_list([tensor.to(self.device) for tensor in tensors], self.size_divisible)
                yield Batch(list(indices), batch)

    def _run_trunk(self, batch: Batch) -> TrunkOutputs:
        return run_trunk(self.model.backbone, self.model.rpn.head, batch.images.tensors)

    def _detect_batch(
        self, images: ImageList, trunk: TrunkOutputs, *, masks: bool
    ) -> tuple[list[BoxList], list[np.ndarray]]:
        """Detections in the network's pixels, and the distribution of each."""
        regions, _ = self.model.rpn(images, trunk.features, predictions=(trunk.logits, trunk.deltas))
        heads: Any = self.model.roi_heads
        if heads is None:
            boxlists = [self._above_threshold(found) for found in regions.to_boxlists(images.image_sizes)]
            return boxlists, [two_point(_array(found.get_field("scores"))) for found in boxlists]
        candidates = heads.box.candidates(trunk.features, regions, images.sizes)
        selection = {**heads.box.selection, "score_thresh": self.score_threshold}
        detections = suppress_candidates(candidates, **selection)
        boxlists = detections.to_boxlists(images.image_sizes)
        distributions = [_array(_distributions(candidates, row, found)) for row, found in enumerate(boxlists)]
        return (heads.mask.add_fields(trunk.features, boxlists) if masks else boxlists), distributions

    def _above_threshold(self, boxlist: BoxList) -> BoxList:
        return boxlist[boxlist.get_field("scores") > self.score_threshold]


def _distributions(candidates: Candidates, row: int, found: BoxList) -> Tensor:
    """Probabilities [D, K] of the background and the classes of the regions from which detections come.

    A detection is known by its box and score, which selection copies bit by bit.
    """
    own = found.get_field("labels") - 1
    same_box = (candidates.boxes[row][own] == found.bbox[:, None]).all(dim=2)  # [D, R]
    same_score = candidates.scores[row][own] == found.get_field("scores")[:, None]
    region = (same_box & same_score).int().argmax(dim=1)
    classes = candidates.scores[row][:, region].T.double()
    background = (1.0 - classes.sum(dim=1, keepdim=True)).clamp(min=0.0)
    return torch.cat([background, classes], dim=1)


def _in_picture(boxlist: BoxList, distributions: np.ndarray, size: tuple[int, int]) -> ImageDetections:
    """Detections in the network's pixels as edges in a picture of (height, width) size."""
    width, height = boxlist.size
    edges = _array(boxlist.convert("xyxy").bbox)
    edges[:, 2:] += WIDTH_OFFSET
    edges = edges * (np.array(size) / (height, width))[[1, 0, 1, 0]]
    masks = boxlist.get_field("mask")[:, 0].float().cpu().numpy() if boxlist.has_field("mask") else None
    return ImageDetections(edges, _array(boxlist.get_field("scores")), distributions, masks)


def _without_padding(level: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """The part of a map [C, H_l, W_l] of a padded picture that the picture itself covers."""
    height, width = (
        math.ceil(length * cells / whole) for length, cells, whole in zip(size, level.shape[1:], padded, strict=True)
    )
    return level[:, :height, :width]


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
