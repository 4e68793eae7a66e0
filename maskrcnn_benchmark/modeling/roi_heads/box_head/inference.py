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


def select_detections(
    logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    image_sizes: Tensor,
    *,
    box_coder: BoxCoder,
    score_thresh: float,
    nms_thresh: float,
    detections_per_img: int,
) -> Detections:
    """Suppress overlaps within each class and keep the best detections of each image; equal scores keep their order.

    Args:
        logits: [N * R, K].
        deltas: [N * R, 4 K].
        image_sizes: [N, 2] (height, width).
        score_thresh: only higher class probabilities count.
        nms_thresh: boxes of one class with a larger IoU are suppressed.
        detections_per_img: D, the most objects of an image.
    """
    n, r = proposals.valid.shape
    scores = logits.float().softmax(dim=1).reshape(n, r, -1)[..., 1:].transpose(1, 2)  # [N, K-1, R]
    boxes = box_coder.decode(deltas.reshape(n, r, -1), proposals.boxes).reshape(n, r, -1, 4)
    boxes = clip_boxes(boxes[:, :, 1:], image_sizes).transpose(1, 2)  # [N, K-1, R, 4]

    scores = torch.where((scores > score_thresh) & proposals.valid[:, None], scores, -1.0)
    scores, order = scores.sort(dim=2, descending=True, stable=True)
    boxes = boxes.gather(2, order[..., None].expand(-1, -1, -1, 4))
    keep = ops.batched_nms(boxes.flatten(0, 1), scores.flatten(0, 1) >= 0, iou_threshold=nms_thresh)

    scores = torch.where(keep.reshape(scores.shape), scores, -1.0).flatten(1)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :detections_per_img], order[:, :detections_per_img]
    boxes = boxes.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
    return Detections(boxes, scores, order.div(r, rounding_mode="floor") + 1, scores >= 0)


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
            x: class logits [P, K] and box codes [P, 4 K] of all images' boxes in order.
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
