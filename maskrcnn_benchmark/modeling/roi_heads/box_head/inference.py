"""From class logits and box codes to detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.structures.bounding_box import BoxList


class Candidates(NamedTuple):
    """A box of each class for each proposal, of which none is suppressed yet."""

    boxes: Tensor  # [N, K-1, R, 4] within the image
    scores: Tensor  # [N, K-1, R] class probabilities, -1 in empty slots


class Detections(NamedTuple):
    """Detected objects of a batch in a fixed number of slots an image, best first."""

    boxes: Tensor  # [N, D, 4]
    scores: Tensor  # [N, D]
    labels: Tensor  # [N, D] int64, 1..K-1
    valid: Tensor  # [N, D] bool

    def to_boxlists(self, image_sizes: list[tuple[int, int]]) -> list[BoxList]:
        """Return one BoxList an image with fields scores and labels, best first; empty slots are left out."""
        boxlists = []
        for boxes, scores, labels, valid, (height, width) in zip(*self, image_sizes, strict=True):
            boxlist = BoxList(boxes[valid], (width, height), mode="xyxy")
            boxlist.add_field("scores", scores[valid])
            boxlist.add_field("labels", labels[valid])
            boxlists.append(boxlist)
        return boxlists


def class_candidates(
    logits: Tensor, deltas: Tensor, proposals: Proposals, image_sizes: Tensor, *, box_coder: BoxCoder
) -> Candidates:
    """Return what the box head says of each class.

    Args:
        logits: [N * R, K].
        deltas: [N * R, 4 B] box codes: one set a class, or 2 sets, of which the classes of objects share the second.
        image_sizes: [N, 2] (height, width).
    """
    n, r = proposals.valid.shape
    scores = logits.float().softmax(dim=1).reshape(n, r, -1)[..., 1:].transpose(1, 2)
    boxes = box_coder.decode(deltas.reshape(n, r, -1), proposals.boxes).reshape(n, r, -1, 4)
    boxes = clip_boxes(boxes[:, :, 1:], image_sizes).transpose(1, 2).expand(*scores.shape, 4)
    return Candidates(boxes, torch.where(proposals.valid[:, None], scores, -1.0))


def suppress_candidates(
    candidates: Candidates, *, score_thresh: float, nms_thresh: float, detections_per_img: int
) -> Detections:
    """Suppress overlaps within each class and keep the best detections of each image; equal scores keep their order.

    Args:
        candidates: of which at most detections_per_img an image are kept.
        score_thresh: only higher class probabilities count.
        nms_thresh: boxes of one class with a larger IoU are suppressed.
        detections_per_img: D, the most objects of an image.
    """
    boxes, r = candidates.boxes, candidates.scores.shape[2]
    scores = torch.where(candidates.scores > score_thresh, candidates.scores, -1.0)
    scores, order = scores.sort(dim=2, descending=True, stable=True)
    boxes = boxes.gather(2, order[..., None].expand(-1, -1, -1, 4))
    keep = ops.batched_nms(boxes.flatten(0, 1), scores.flatten(0, 1) >= 0, iou_threshold=nms_thresh)

    scores = torch.where(keep.reshape(scores.shape), scores, -1.0).flatten(1)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :detections_per_img], order[:, :detections_per_img]
    boxes = boxes.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
    return Detections(boxes, scores, order.div(r, rounding_mode="floor") + 1, scores >= 0)


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    image_sizes: Tensor,
    *,
    box_coder: BoxCoder,
    **selection: Any,
) -> Detections:
    """Return the detections of each image: `class_candidates`, then `suppress_candidates` with ``selection``."""
    candidates = class_candidates(logits, deltas, proposals, image_sizes, box_coder=box_coder)
    return suppress_candidates(candidates, **selection)


class PostProcessor(nn.Module):
    """Published face of `select_detections` for heads that work on lists of boxes."""

    def __init__(
        self,
        score_thresh: float = 0.05,
        nms: float = 0.5,
        detections_per_img: int = 100,
        box_coder: BoxCoder | None = None,
    ) -> None:
        super().__init__()
        self.box_coder = box_coder or BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
        self.settings = {"score_thresh": score_thresh, "nms_thresh": nms, "detections_per_img": detections_per_img}

    def forward(self, x: tuple[Tensor, Tensor], boxes: Sequence[BoxList]) -> list[BoxList]:
        """Return the detections of each image with fields scores and labels.

        Args:
            x: class logits [P, K] and box codes [P, 4 K], or [P, 8] that all classes share, of all images' boxes in
                order.
            boxes: the proposals, P in all.
        """
        proposals = Proposals.from_boxlists(boxes)
        slots = proposals.valid.flatten()
        logits, deltas = (
            rows.new_zeros((len(slots), rows.shape[1])).masked_scatter(slots[:, None], rows) for rows in x
        )
        image_sizes = [(height, width) for width, height in (b.size for b in boxes)]
        sizes = torch.as_tensor(image_sizes, device=logits.device)
        detections = select_detections(logits, deltas, proposals, sizes, box_coder=self.box_coder, **self.settings)
        return detections.to_boxlists(image_sizes)


def make_roi_box_post_processor(cfg: Any) -> PostProcessor:
    """Build the post-processor that MODEL.ROI_HEADS describes."""
    heads = cfg.MODEL.ROI_HEADS
    box_coder = BoxCoder(weights=heads.BBOX_REG_WEIGHTS)
    return PostProcessor(heads.SCORE_THRESH, heads.NMS, heads.DETECTIONS_PER_IMG, box_coder)
