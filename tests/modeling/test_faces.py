"""Published helpers that work on lists of boxes give what the network itself computes."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import make_roi_box_post_processor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import make_roi_box_loss_evaluator
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import make_roi_mask_loss_evaluator
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.test_detector import build, make_batch, make_cfg

EVERYTHING = {
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 10**6,
    "MODEL__ROI_HEADS__POSITIVE_FRACTION": 1.0,
    "MODEL__ROI_HEADS__SCORE_THRESH": 0.0,
}


@pytest.fixture
def parts():
    model = build(**EVERYTHING).eval()
    images, targets = make_batch()
    with torch.no_grad():
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
    return model, images, targets, features, proposals


def test_post_processor(parts):
    model, images, _, features, proposals = parts
    proposals.valid[1, 5:] = False  # lists of different lengths
    head, boxlists = model.roi_heads.box, proposals.to_boxlists(images.image_sizes)
    with torch.no_grad():
        outputs = head.predictor(head.feature_extractor(features, boxlists))
        found = make_roi_box_post_processor(make_cfg(**EVERYTHING))(outputs, boxlists)
        expected = head.detect(features, proposals, images.sizes).to_boxlists(images.image_sizes)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.bbox, other.bbox)
        torch.testing.assert_close(one.get_field("scores"), other.get_field("scores"))
        assert one.get_field("labels").tolist() == other.get_field("labels").tolist()


def test_loss_evaluators(parts):
    model, images, targets, features, proposals = parts
    packed = Targets.from_boxlists(targets)
    heads = model.roi_heads
    with torch.no_grad():
        regions, _, expected = heads.box.losses(features, proposals, packed)
        expected |= heads.mask.losses(features, regions, packed)

        evaluator = make_roi_box_loss_evaluator(make_cfg(**EVERYTHING))
        sampled = evaluator.subsample(proposals.to_boxlists(images.image_sizes), targets)
        assert all(torch.equal(b.get_field("labels") > 0, b.get_field("labels") != 0) for b in sampled)
        logits, deltas = heads.box.predictor(heads.box.feature_extractor(features, sampled))
        loss_classifier, loss_box_reg = evaluator([logits], [deltas])

        mask_logits = heads.mask.predictor(heads.mask.feature_extractor(features, sampled))
        loss_mask = make_roi_mask_loss_evaluator(make_cfg(**EVERYTHING))(sampled, mask_logits, targets)
    losses = {"loss_classifier": loss_classifier, "loss_box_reg": loss_box_reg, "loss_mask": loss_mask}
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-6)


def test_losses_need_sampling_first():
    with pytest.raises(RuntimeError, match="subsample"):
        make_roi_box_loss_evaluator(make_cfg())([torch.zeros(1, 4)], [torch.zeros(1, 16)])
