"""Masks of detections: probabilities, and pasting them into the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.structures.bounding_box import BoxList


def mask_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Return [P, 1, M, M] probabilities of the detected classes from logits [P, K, M, M] and labels [P]."""
    own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))
    return own.float().sigmoid()


class Masker:
    """Pastes mask probabilities into their images.

    Args:
        threshold: probability above which a pixel belongs to the object; -1 returns heat maps of 0..255 (uint8).
        padding: pixels of zeros put around a mask before it is enlarged, against border effects.
    """

    def __init__(self, threshold: float = 0.5, padding: int = 1) -> None:
        self.threshold = threshold
        self.padding = padding

    def forward_single_image(self, masks: Tensor, boxes: BoxList) -> Tensor:
        """Return [n, 1, H, W] from probabilities [n, 1, M, M] and the boxes of one image; (0, 1, M, M) for none."""
        if len(masks) == 0:
            return masks.new_empty((0, 1, *masks.shape[-2:]))
        boxes = boxes.convert("xyxy")
        width, height = boxes.size
        return ops.paste_masks(
            masks[:, 0].float(),
            boxes.bbox.float(),
            image_size=(height, width),
            threshold=self.threshold,
            padding=self.padding,
        )[:, None]

    def __call__(self, masks: Sequence[Tensor], boxes: BoxList | Sequence[BoxList]) -> list[Tensor]:
        """Return one tensor [n, 1, H, W] an image."""
        boxes = [boxes] if isinstance(boxes, BoxList) else boxes
        if len(masks) != len(boxes):
            raise ValueError(f"{len(masks)} images have masks, but {len(boxes)} have boxes; give one of each an image")
        return [self.forward_single_image(m, b) for m, b in zip(masks, boxes, strict=True)]


class MaskPostProcessor(nn.Module):
    """Adds a field mask to detections: probabilities [n, 1, M, M], or pasted masks when there is a masker."""

    def __init__(self, masker: Masker | None = None) -> None:
        super().__init__()
        self.masker = masker

    def forward(self, x: Tensor, boxes: Sequence[BoxList]) -> list[BoxList]:
        """Return copies of boxes with field mask.

        Args:
            x: mask logits [P, K, M, M] of all images' detections in order.
            boxes: detections with field labels, P in all.
        """
        labels = torch.cat([b.get_field("labels") for b in boxes])
        probabilities = mask_probabilities(x, labels).split([len(b) for b in boxes])
        masks = self.masker(probabilities, boxes) if self.masker else probabilities
        results = []
        for mask, boxlist in zip(masks, boxes, strict=True):
            result = boxlist.copy_with_fields(boxlist.fields())
            result.add_field("mask", mask)
            results.append(result)
        return results


def make_roi_mask_post_processor(cfg: Any) -> MaskPostProcessor:
    """Build the post-processor; MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS pastes the masks into the image."""
    head = cfg.MODEL.ROI_MASK_HEAD
    masker = Masker(threshold=head.POSTPROCESS_MASKS_THRESHOLD, padding=1) if head.POSTPROCESS_MASKS else None
    return MaskPostProcessor(masker)
