"""Batched selection of proposals and detections against plain loops over images, levels and classes."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import select_detections
from maskrcnn_benchmark.modeling.rpn.inference import select_proposals

SIZES = torch.tensor([[200, 300], [180, 320]])


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    inter = max(w, 0) * max(h, 0)
    area = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return inter / (area[0] + area[1] - inter)


def slow_nms(boxes, threshold):
    """Indices kept of boxes sorted by score."""
    keep = []
    for i, box in enumerate(boxes.tolist()):
        if all(iou(box, boxes[j].tolist()) <= threshold for j in keep):
            keep.append(i)
    return keep


def slow_clip(boxes, size):
    height, width = size.tolist()
    low = torch.zeros(4)
    return torch.max(torch.min(boxes, torch.tensor([width - 1.0, height - 1, width - 1, height - 1])), low)


def rpn_outputs(seed=0):
    torch.manual_seed(seed)
    counts = [90, 40, 8]
    logits = [torch.randn(2, n) for n in counts]
    deltas = [0.3 * torch.randn(2, n, 4) for n in counts]
    corners = [torch.rand(n, 2) * 200 for n in counts]
    anchors = [torch.cat((c, c + 10 + 60 * torch.rand(len(c), 2)), 1) for c in corners]
    return logits, deltas, anchors


@pytest.mark.parametrize("over_batch", [True, False])
@pytest.mark.parametrize(
    ("pre", "post", "total", "min_size"), [(30, 10, 15, 0), (1000, 1000, 1000, 0), (50, 20, 40, 25)]
)
def test_proposals_equal_loops(pre, post, total, min_size, over_batch):
    logits, deltas, anchors = rpn_outputs()
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    expected = []  # (image, score, box)
    for image in range(2):
        found = []
        for level in range(3):
            order = logits[level][image].argsort(descending=True)[:pre]
            boxes = slow_clip(coder.decode(deltas[level][image][order], anchors[level][order]), SIZES[image])
            large = [i for i, b in enumerate(boxes.tolist()) if min(b[2] - b[0], b[3] - b[1]) + 1 >= min_size]
            order, boxes = order[large], boxes[large]
            for i in slow_nms(boxes, 0.5)[:post]:
                found.append((image, logits[level][image][order[i]].sigmoid().item(), boxes[i].tolist()))
        found.sort(key=lambda item: -item[1])
        expected.append(found if over_batch else found[:total])
    if over_batch:
        best = sorted((item for found in expected for item in found), key=lambda item: -item[1])[:total]
        expected = [[item for item in found if item in best] for found in expected]

    result = select_proposals(
        logits,
        deltas,
        anchors,
        SIZES,
        box_coder=coder,
        pre_nms_top_n=pre,
        post_nms_top_n=post,
        total_top_n=total,
        total_over_batch=over_batch,
        nms_thresh=0.5,
        min_size=min_size,
    )
    for image in range(2):
        valid = result.valid[image]
        torch.testing.assert_close(result.scores[image][valid], torch.tensor([item[1] for item in expected[image]]))
        torch.testing.assert_close(
            result.boxes[image][valid], torch.tensor([item[2] for item in expected[image]]).reshape(-1, 4)
        )


@pytest.mark.parametrize("limit", [5, 1000])
def test_detections_equal_loops(limit):
    torch.manual_seed(1)
    r, k = 60, 4
    corner = torch.rand(2, r, 2) * 150
    boxes = torch.cat((corner, corner + 20 + 60 * torch.rand(2, r, 2)), -1)
    valid = torch.rand(2, r) > 0.2
    logits, deltas = 2 * torch.randn(2 * r, k), 0.3 * torch.randn(2 * r, 4 * k)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    result = select_detections(
        logits,
        deltas,
        Proposals(boxes, torch.ones(2, r), valid),
        SIZES,
        box_coder=coder,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=limit,
    )
    probabilities = logits.softmax(1).reshape(2, r, k)
    for image in range(2):
        decoded = coder.decode(deltas.reshape(2, r, -1)[image], boxes[image]).reshape(r, k, 4)
        found = []
        for label in range(1, k):
            scores = probabilities[image, :, label]
            candidates = [i for i in scores.argsort(descending=True).tolist() if valid[image, i] and scores[i] > 0.05]
            class_boxes = slow_clip(decoded[candidates, label], SIZES[image])
            for i in slow_nms(class_boxes, 0.5):
                found.append((scores[candidates[i]].item(), label, class_boxes[i].tolist()))
        found.sort(key=lambda item: -item[0])
        found = found[:limit]
        chosen = result.valid[image]
        assert result.labels[image][chosen].tolist() == [item[1] for item in found]
        torch.testing.assert_close(result.scores[image][chosen], torch.tensor([item[0] for item in found]))
        torch.testing.assert_close(result.boxes[image][chosen], torch.tensor([item[2] for item in found]))


def test_equal_scores_keep_exactly_the_limit_in_order():
    r = 50
    corner = torch.arange(r, dtype=torch.float32)[:, None] * 30
    boxes = torch.cat((corner, corner * 0, corner + 10, corner * 0 + 10), 1)[None]
    result = select_detections(
        torch.zeros(r, 2),
        torch.zeros(r, 8),
        Proposals(boxes, torch.ones(1, r), torch.ones(1, r, dtype=torch.bool)),
        torch.tensor([[100, 5000]]),
        box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=20,
    )
    assert result.valid.sum() == 20
    torch.testing.assert_close(result.boxes[0], boxes[0, :20])
