"""Box codes that all classes share: the same as class-wise codes that are all alike, and as plain loops."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import select_detections
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import SampledRegions, box_head_losses
from tests.modeling.test_c4 import C4
from tests.modeling.test_detector import build, make_batch

AGNOSTIC = {"MODEL__CLS_AGNOSTIC_BBOX_REG": True}
NUM_CLASSES = 5


def test_the_loss_trains_the_second_set_of_every_object():
    torch.manual_seed(0)
    labels = torch.tensor([[4, 1, 0, 0], [2, 0, 0, 0]])
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    regions = SampledRegions(torch.zeros(2, 4, 4), valid, labels, torch.zeros_like(labels), torch.randn(2, 4, 4))
    logits, deltas = torch.randn(8, NUM_CLASSES), torch.randn(8, 8, requires_grad=True)
    _, loss = box_head_losses(logits, deltas, regions)

    expected = 0.0
    for slot in (0, 1, 4):
        targets = regions.target_deltas.reshape(8, 4)[slot]
        for code, target in zip(deltas[slot, 4:].tolist(), targets.tolist(), strict=True):
            distance = abs(code - target)
            expected += 0.5 * distance**2 if distance < 1 else distance - 0.5
    assert loss.item() == pytest.approx(expected / 5)

    (gradient,) = torch.autograd.grad(loss, deltas)
    assert not gradient[:, :4].any()
    assert gradient[:, 4:].any(1).nonzero().flatten().tolist() == [0, 1, 4]


def test_all_classes_get_the_same_boxes():
    torch.manual_seed(0)
    n, r = 2, 30
    corners = 80 * torch.rand(n, r, 2)
    boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(n, r, 2)), dim=2)
    valid = torch.rand(n, r) > 0.2
    proposals = Proposals(boxes, torch.rand(n, r), valid)
    logits, deltas = 2 * torch.randn(n * r, NUM_CLASSES), torch.randn(n * r, 8)
    settings = {"score_thresh": 0.1, "nms_thresh": 0.5, "detections_per_img": 25}
    arguments = (proposals, torch.tensor([[100, 110], [90, 120]]))
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    found = select_detections(logits, deltas, *arguments, box_coder=coder, **settings)
    repeated = torch.cat((deltas[:, :4], deltas[:, 4:].repeat(1, NUM_CLASSES - 1)), dim=1)
    expected = select_detections(logits, repeated, *arguments, box_coder=coder, **settings)
    assert found.valid.sum() > 20
    for column, other in zip(found, expected, strict=True):
        assert torch.equal(column, other)


@pytest.mark.parametrize("network", [{}, C4])
def test_the_network(network):
    model = build(**(network | AGNOSTIC | {"MODEL__ROI_HEADS__SCORE_THRESH": 0.0}))
    predictor = model.roi_heads.box.predictor
    assert predictor.bbox_pred.weight.shape[0] == 8
    assert predictor.cls_score.weight.shape[0] == 4
    images, targets = make_batch()
    losses = model(images, targets)
    sum(losses.values()).backward()
    rows = predictor.bbox_pred.weight.grad.abs().sum(1)
    assert (rows[:4] == 0).all()
    assert (rows[4:] > 0).all()
    with torch.no_grad():
        found = model.eval()(images)
    for boxes in found:
        assert len(boxes) == 20
        assert boxes.bbox.isfinite().all()
