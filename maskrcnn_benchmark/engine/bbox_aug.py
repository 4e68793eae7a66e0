"""Box test-time augmentation: the boxes found in several views of an image compete with one another.

As Detectron and the original do it, the boxes of all views are pooled before any is suppressed. Masks and keypoints are
not augmented: those of the boxes that are left come from the plain view. Letters: N images, K classes, R boxes a class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import WIDTH_OFFSET, BoxList
from maskrcnn_benchmark.structures.image_list import ImageList


class BoxAugmentation:
    """Detects in several views of each picture.

    Args:
        model: a network with a box head, in the form of `build_detection_model`, in evaluation mode when called.
        views: pictures -> (batch, whether it is flipped left to right) of each view, the plain one first.
        prepare: a batch of ``views`` -> the network's input on its device.
    """

    def __init__(
        self,
        model: Any,
        views: Callable[[Sequence[Any]], Iterable[tuple[ImageList, bool]]],
        prepare: Callable[[ImageList], ImageList],
    ) -> None:
        self.model = model
        self.views = views
        self.prepare = prepare

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Any]) -> list[BoxList]:
        """Return the detections of each picture in the pixels of its plain view, as the model itself gives them."""
        heads = self.model.roi_heads
        plain, features = None, None
        boxes, scores = [], []
        for images, flipped in self.views(pictures):
            images = self.prepare(images)
            pyramid = self.model.backbone(images.tensors)
            proposals, _ = self.model.rpn(images, pyramid)
            found = heads.box.candidates(pyramid, proposals, images.sizes)
            if plain is None:
                plain, features = images, pyramid
            boxes.append(to_plain_view(found.boxes, images.sizes, plain.sizes, flipped=flipped))
            scores.append(found.scores)
        boxes, scores = keep_likely(
            torch.cat(boxes, dim=2), torch.cat(scores, dim=2), threshold=heads.box.selection["score_thresh"]
        )
        detections = heads.box.select(found._replace(boxes=boxes, scores=scores))
        return heads.add_fields(features, detections, plain)


def to_plain_view(boxes: Tensor, sizes: Tensor, plain_sizes: Tensor, *, flipped: bool) -> Tensor:
    """Boxes in the pixels of the plain view.

    Args:
        boxes: [N, K, R, 4] in the pixels of a view.
        sizes: [N, 2] (height, width) of its images.
        plain_sizes: [N, 2] of those of the plain view.
        flipped: whether the view is mirrored left to right.
    """
    widths = sizes[:, 1].to(boxes.dtype)[:, None, None]
    if flipped:
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        boxes = torch.stack((widths - x2 - WIDTH_OFFSET, y1, widths - x1 - WIDTH_OFFSET, y2), dim=-1)
    scale = (plain_sizes.to(boxes.dtype) / sizes.to(boxes.dtype)).flip(1).tile(2)  # x, y, x, y
    return boxes * scale[:, None, None]


def keep_likely(boxes: Tensor, scores: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """As many of the best boxes of each class as the class with most has above a threshold. Waits for the device.

    Few of the pooled boxes are that likely, and suppression compares all pairs.

    Args:
        boxes: [N, K, R, 4]. scores: [N, K, R]; equal ones keep their order.
        threshold: of the scores.
    """
    count = int((scores > threshold).sum(dim=2).max()) if scores.numel() else 0
    scores, order = scores.sort(dim=2, descending=True, stable=True)
    order = order[:, :, : max(count, 1)]
    return boxes.gather(2, order[..., None].expand(-1, -1, -1, 4)), scores[:, :, : max(count, 1)]
