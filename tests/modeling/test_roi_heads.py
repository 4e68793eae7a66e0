"""A head of one's own beside the box head: found by its name, trained and asked like the others."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.detector import build_detection_model
from tests.modeling.test_c4 import C4
from tests.modeling.test_detector import LOSSES, build, make_batch, make_cfg


class AreaHead(nn.Module):
    """Says of each region whether the box features are there; counts what it is given."""

    def __init__(self, cfg, in_channels, box_feature_extractor):
        super().__init__()
        self.feature_extractor = box_feature_extractor if cfg.MODEL.AREA_SHARES else None
        self.scale = nn.Parameter(torch.ones(1))

    def losses(self, features, regions, targets, box_features):
        self.shape = None if box_features is None else tuple(box_features.shape)
        return {"loss_area": self.scale.sum() * regions.valid.sum() / len(targets.valid)}

    def add_fields(self, features, detections):
        for boxes in detections:
            boxes.add_field("area", self.scale * boxes.area())
        return detections


def make_network(monkeypatch, shares):
    monkeypatch.setitem(registry.ROI_HEADS, "area", AreaHead)
    cfg = make_cfg(**(C4 | {"MODEL__MASK_ON": False}))
    cfg.MODEL.AREA_ON, cfg.MODEL.AREA_SHARES = True, shares
    return build_detection_model(cfg)


def test_it_trains_and_adds_its_field(monkeypatch):
    model = make_network(monkeypatch, shares=False)
    assert "roi_heads.area.scale" in model.state_dict()
    images, targets = make_batch()
    losses = model(images, targets)
    assert set(losses) == LOSSES - {"loss_mask"} | {"loss_area"}
    assert model.roi_heads.area.shape is None
    with torch.no_grad():
        found = model.eval()(images)
    assert all(torch.equal(boxes.get_field("area"), boxes.area()) for boxes in found)


def test_it_gets_the_box_features_when_it_shares_the_extractor(monkeypatch):
    model = make_network(monkeypatch, shares=True)
    model(*make_batch())
    assert model.roi_heads.area.shape == (2 * 62, 64, 7, 7)  # 60 proposals and 2 objects an image, res5 on 14x14


def test_nothing_is_built_that_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(registry.ROI_HEADS, "area", AreaHead)
    assert [name for name, _ in build().roi_heads.named_children()] == ["box", "mask"]
