from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.ops import match_boxes

# rows: ground truths; columns: boxes
QUALITY = torch.tensor([[0.9, 0.4, 0.1, 0.0, 0.35], [0.2, 0.6, 0.1, 0.0, 0.35]])


def test_matches_by_hand():
    assert Matcher(0.7, 0.3)(QUALITY).tolist() == [0, -2, -1, -1, -2]
    assert Matcher(0.7, 0.3, allow_low_quality_matches=True)(QUALITY).tolist() == [0, 1, -1, -1, -2]
    assert Matcher(0.7, 0.3)(QUALITY[:0]).tolist() == [-1] * 5


def test_thresholds_in_order():
    with pytest.raises(ValueError, match=r"low_threshold \(0.5\)"):
        Matcher(0.3, 0.5)


@pytest.mark.parametrize("low_quality", [False, True])
def test_face_equals_fused_op(low_quality):
    torch.manual_seed(0)
    corner = torch.rand(40, 2) * 100
    boxes = torch.cat((corner, corner + 10 + 50 * torch.rand(40, 2)), 1)
    gt = boxes[:5] + torch.randn(5, 4) * 4
    size = (torch.minimum(gt[:, None, 2:], boxes[:, 2:]) - torch.maximum(gt[:, None, :2], boxes[:, :2]) + 1).clamp(
        min=0
    )
    area = [(b[:, 2:] - b[:, :2] + 1).prod(1) for b in (gt, boxes)]
    inter = size.prod(2)
    expected = Matcher(0.6, 0.3, low_quality)(inter / (area[0][:, None] + area[1] - inter))
    valid = torch.ones(1, 5, dtype=torch.bool)
    result = match_boxes(boxes, gt[None], valid, high=0.6, low=0.3, allow_low_quality=low_quality)
    torch.testing.assert_close(result[0], expected)
