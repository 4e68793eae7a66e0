"""RetinaNet's parts against plain loops over images, levels and classes, written from the original's rules."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelP6P7
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.rpn.retinanet.inference import select_dense_detections
from maskrcnn_benchmark.modeling.rpn.retinanet.loss import retinanet_losses
from maskrcnn_benchmark.modeling.rpn.retinanet.retinanet import RetinaNetHead
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.modeling.rpn.utils import flatten_map
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.test_detector import make_cfg

CLASSES = 5
SIZES = [(96, 128), (90, 120)]
CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
LOSS_SETTINGS = {
    "fg_iou_threshold": 0.5, "bg_iou_threshold": 0.4, "alpha": 0.25, "gamma": 2.0, "box_beta": 0.11, "box_norm": 4.0,
}  # fmt: skip
SELECTION = {"score_thresh": 0.2, "pre_nms_top_n": 60, "nms_thresh": 0.4, "detections_per_img": 30}


def make_maps(num_images=2, seed=0):
    """Anchors [A_l, 4], logits [N, A_l, K] and codes [N, A_l, 4] of three levels, the last one smaller than a cut."""
    generator = torch.Generator().manual_seed(seed)
    anchors, logits, deltas = [], [], []
    for stride, height, width in ((8, 12, 16), (16, 6, 8), (64, 1, 2)):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        corner = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4) * stride
        half = torch.tensor([[2.0, 1.5], [1.4, 2.1]]) * stride
        anchors.append((corner + torch.cat((-half, half), dim=1)).reshape(-1, 4))
        shape = (num_images, len(anchors[-1]))
        logits.append(2 * torch.randn(*shape, CLASSES, generator=generator) - 2)
        deltas.append(torch.randn(*shape, 4, generator=generator))
    return anchors, logits, deltas


def make_targets(*images):
    """One BoxList an image from (boxes, labels)."""
    boxlists = []
    for (boxes, labels), (height, width) in zip(images, SIZES, strict=True):
        boxlist = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), (width, height))
        boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
        boxlists.append(boxlist)
    return boxlists


# One image with a box that no anchor meets well, one with a single box or none.
MANY = ([[10, 12, 40, 39], [41, 18, 90, 60], [100, 2, 103, 4]], [2, 5, 1])
ONE, NONE = ([[30, 30, 61, 59]], [3]), ([], [])


def losses_by_loops(logits, deltas, anchors, boxlists):
    """As published: image by image, with the positives picked out, and IoU matrices."""
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    classification = regression = torch.zeros((), dtype=torch.float64)
    num_positive = 0
    for n, boxlist in enumerate(boxlists):
        matches = matcher(boxlist_iou(boxlist, BoxList(anchors, boxlist.size)))
        for anchor, match in enumerate(matches.tolist()):
            if match == Matcher.BETWEEN_THRESHOLDS:
                continue
            label = boxlist.get_field("labels")[match].item() if match >= 0 else 0
            for k, logit in enumerate(logits[n, anchor].double(), start=1):
                p, weight = (logit.sigmoid(), 0.25) if k == label else (1 - logit.sigmoid(), 0.75)
                classification = classification - weight * (1 - p) ** 2 * p.log()
            if label:
                num_positive += 1
                code = CODER.encode(boxlist.bbox[match], anchors[anchor])
                for distance in (code - deltas[n, anchor]).double().abs():
                    regression = regression + (distance**2 / 0.22 if distance < 0.11 else distance - 0.055)
    return classification / (num_positive + len(boxlists)), regression / max(1, num_positive * 4)


@pytest.mark.parametrize("images", [(MANY, ONE), (MANY, NONE), (NONE, NONE)], ids=["both", "one_empty", "empty"])
def test_losses_and_gradients_equal_loops(images):
    anchors, logits, deltas = make_maps()
    boxlists, all_anchors = make_targets(*images), torch.cat(anchors)
    results = []
    for function in (
        lambda a, b: retinanet_losses(
            a, b, all_anchors, Targets.from_boxlists(boxlists), box_coder=CODER, **LOSS_SETTINGS
        ),
        lambda a, b: losses_by_loops(torch.cat(a, 1), torch.cat(b, 1), all_anchors, boxlists),
    ):
        leaves = [[level.clone().requires_grad_() for level in maps] for maps in (logits, deltas)]
        losses = function(*leaves)
        sum(losses).backward()
        grads = [level.grad if level.grad is not None else torch.zeros_like(level) for maps in leaves for level in maps]
        results.append((losses, grads))
    (losses, grads), (expected, expected_grads) = results
    assert [loss.item() for loss in losses] == pytest.approx([loss.item() for loss in expected], rel=1e-5)
    assert (losses[1] > 0) == (images[0] is MANY)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-7)


def test_a_ground_truth_that_no_anchor_meets_well_claims_its_best_one():
    anchors, logits, deltas = make_maps()
    lonely = make_targets(([[100, 2, 103, 4]], [4]), NONE)
    iou = boxlist_iou(lonely[0], BoxList(torch.cat(anchors), (128, 96)))
    assert 0 < iou.max() < 0.4
    _, box_loss = retinanet_losses(
        logits, deltas, torch.cat(anchors), Targets.from_boxlists(lonely), box_coder=CODER, **LOSS_SETTINGS
    )
    assert box_loss > 0


def test_infinite_codes_of_other_anchors_reach_no_gradient():
    anchors, logits, deltas = make_maps()
    deltas = [level.clone() for level in deltas]
    deltas[0][:, 0] = torch.inf
    deltas = [level.requires_grad_() for level in deltas]
    losses = retinanet_losses(
        logits, deltas, torch.cat(anchors), Targets.from_boxlists(make_targets(MANY, ONE)), box_coder=CODER,
        **LOSS_SETTINGS,
    )  # fmt: skip
    losses[1].backward()
    assert all(level.grad.isfinite().all() for level in deltas)


def detections_by_loops(logits, deltas, anchors, image, *, score_thresh, pre_nms_top_n, nms_thresh, detections_per_img):
    """As published: level by level, then class by class. Returns (score, label, box) triples, best first."""
    height, width = SIZES[image]
    candidates = []
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        scores = level_logits[image].sigmoid()
        above = [(scores[a, k].item(), a, k + 1) for a, k in (scores > score_thresh).nonzero().tolist()]
        for score, a, label in sorted(above, reverse=True)[:pre_nms_top_n]:
            box = CODER.decode(level_deltas[image, a][None], level_anchors[a][None])[0]
            candidates.append((score, label, box.clamp(min=0).minimum(torch.tensor([width, height] * 2) - 1)))
    kept = []
    for score, label, box in sorted(candidates, key=lambda each: -each[0]):
        rivals = [other for _, other_label, other in kept if other_label == label]
        pair = [BoxList(torch.stack(boxes), (width, height)) for boxes in ([box], rivals or [box + 1e6])]
        if not (boxlist_iou(*pair) > nms_thresh).any():
            kept.append((score, label, box))
    return kept[:detections_per_img] if detections_per_img else kept


@pytest.mark.parametrize(
    "changes", [{}, {"detections_per_img": 0}, {"pre_nms_top_n": 4000}, {"score_thresh": 0.9999}], ids=str
)
def test_selection_equals_loops(changes):
    anchors, logits, deltas = make_maps()
    settings = SELECTION | changes
    results = select_dense_detections(
        logits, deltas, anchors, torch.tensor(SIZES), box_coder=CODER, **settings
    ).to_boxlists(SIZES)
    for image, result in enumerate(results):
        expected = detections_by_loops(logits, deltas, anchors, image, **settings)
        assert result.get_field("labels").tolist() == [label for _, label, _ in expected]
        assert result.get_field("scores").tolist() == pytest.approx([score for score, _, _ in expected])
        boxes = torch.stack([box for *_, box in expected]) if expected else torch.zeros(0, 4)
        torch.testing.assert_close(result.bbox, boxes, rtol=0, atol=1e-3)
    assert any(len(result) for result in results) == ("score_thresh" not in changes)


def test_equal_scores_give_no_more_than_the_limit():
    anchors, logits, deltas = make_maps()
    ties = [torch.ones_like(level) for level in logits]
    detections = select_dense_detections(
        ties, deltas, anchors, torch.tensor(SIZES), box_coder=CODER, **SELECTION | {"detections_per_img": 7}
    )
    assert detections.valid.sum(1).tolist() == [7, 7]


def test_classes_beyond_the_80_of_coco_are_found():
    anchors, _, deltas = make_maps(num_images=1)
    logits = [torch.full((*level.shape[:2], 90), -9.0) for level in deltas]
    logits[0][0, 50, 86] = 3.0
    (result,) = select_dense_detections(
        logits, deltas, anchors, torch.tensor(SIZES[:1]), box_coder=CODER, **SELECTION
    ).to_boxlists(SIZES[:1])
    assert result.get_field("labels").tolist() == [87]


def test_anchors_follow_octaves_and_ratios():
    rpn = build_rpn(make_cfg(MODEL__RETINANET_ON=True), 8)
    cells = rpn.anchor_generator.cell_anchors
    assert rpn.anchor_generator.num_anchors_per_location() == [9] * 5
    for level, (stride, size) in enumerate(zip((8, 16, 32, 64, 128), (32, 64, 128, 256, 512), strict=True)):
        anchors = cells[level].double()
        sides = anchors[:, 2:] - anchors[:, :2] + 1
        scales = size * 2.0 ** (torch.arange(3) / 3)  # sizes fastest, ratios slowest
        torch.testing.assert_close(sides[3:6], scales.double()[:, None].expand(3, 2), rtol=1e-5, atol=0)
        areas = scales.double().repeat(3) ** 2
        assert ((sides.prod(1) / areas - 1).abs() < 0.15).all()  # whole pixels of the stride
        ratios = torch.tensor([0.5, 1, 2], dtype=torch.float64).repeat_interleave(3)
        assert ((sides[:, 1] / sides[:, 0] / ratios - 1).abs() < 0.1).all()
        centres = anchors.reshape(-1, 2, 2).mean(1)
        torch.testing.assert_close(centres, torch.full((9, 2), (stride - 1) / 2).double(), rtol=1e-5, atol=0)


def test_head_starts_from_the_prior():
    torch.manual_seed(0)
    head = RetinaNetHead(16, num_anchors=3, num_classes=CLASSES, num_convs=2, prior_prob=0.02)
    logits, deltas = head([torch.zeros(1, 16, 4, 6), torch.zeros(1, 16, 2, 3)])
    assert [tuple(level.shape) for level in logits] == [(1, 15, 4, 6), (1, 15, 2, 3)]
    assert [tuple(level.shape) for level in deltas] == [(1, 12, 4, 6), (1, 12, 2, 3)]
    torch.testing.assert_close(logits[0].sigmoid(), torch.full((1, 15, 4, 6), 0.02))
    assert [name for name, _ in head.cls_tower.named_children()] == ["0", "1", "2", "3"]
    assert math.isclose(head.cls_tower[2].weight.std().item(), 0.01, rel_tol=0.1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flat_maps_stand_in_the_order_of_the_anchors(layout):
    x = torch.arange(2 * 6 * 3 * 4.0).reshape(2, 6, 3, 4)
    flat = flatten_map(x.contiguous(memory_format=layout), 3)
    for row in range(3):
        for column in range(4):
            for anchor in range(2):
                expected = x[:, anchor * 3 : anchor * 3 + 3, row, column]
                assert torch.equal(flat[:, (row * 4 + column) * 2 + anchor], expected)


@pytest.mark.parametrize("use_c5", [True, False])
def test_coarse_levels_come_from_input_or_output(use_c5):
    torch.manual_seed(0)
    blocks = LastLevelP6P7(12 if use_c5 else 8, 8, use_c5=use_c5)
    fpn = FPN([0, 4, 12], 8, conv_with_kaiming_uniform(), top_blocks=blocks)
    assert {name.split(".")[0] for name in fpn.state_dict()} == {
        "fpn_inner2", "fpn_layer2", "fpn_inner3", "fpn_layer3", "top_blocks",
    }  # fmt: skip
    maps = [torch.randn(1, channels, size, size) for channels, size in ((2, 28), (4, 14), (12, 7))]
    p4, p5, p6, p7 = fpn(maps)
    assert [level.shape[-1] for level in (p4, p5, p6, p7)] == [14, 7, 4, 2]
    torch.testing.assert_close(p6, F.conv2d(maps[2] if use_c5 else p5, blocks.p6.weight, blocks.p6.bias, 2, 1))
    torch.testing.assert_close(p7, F.conv2d(p6.clamp(min=0), blocks.p7.weight, blocks.p7.bias, 2, 1))


def test_other_networks_do_not_load_it():
    code = "import sys, maskrcnn_benchmark.modeling.detector; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "maskrcnn_benchmark.modeling.rpn.rpn" in loaded
    assert not [name for name in loaded if "retinanet" in name]
