from __future__ import annotations

import math

import pytest
import torch

from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes


def random_boxes(*shape, seed=0, size=400.0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size
    return torch.cat((corner, corner + torch.rand(*shape, 2, generator=g, dtype=torch.float64) * size), -1)


def test_encode_by_hand():
    # proposal: 10 x 20 pixels around (5, 10); ground truth: 20 x 20 around (15, 10)
    proposal = torch.tensor([[0.0, 0.0, 9.0, 19.0]])
    reference = torch.tensor([[5.0, 0.0, 24.0, 19.0]])
    codes = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)).encode(reference, proposal)
    torch.testing.assert_close(codes, torch.tensor([[10.0, 0.0, 5 * math.log(2), 0.0]]))


@pytest.mark.parametrize("shape", [(7,), (2, 5), (0,)])
def test_decode_inverts_encode(shape):
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    boxes, proposals = random_boxes(*shape, seed=1), random_boxes(*shape, seed=2)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, proposals), proposals), boxes)


def test_decode_of_several_classes_equals_one_by_one():
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    boxes = random_boxes(6)
    codes = torch.randn(6, 12, dtype=torch.float64)
    separate = [coder.decode(codes[:, i : i + 4], boxes) for i in (0, 4, 8)]
    torch.testing.assert_close(coder.decode(codes, boxes), torch.cat(separate, 1))


def test_decode_clamps_the_size():
    boxes = torch.tensor([[0.0, 0.0, 15.0, 15.0]])
    decoded = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)).decode(torch.tensor([[0.0, 0.0, 50.0, 0.0]]), boxes)
    assert decoded[0, 2] - decoded[0, 0] + 1 == pytest.approx(1000.0)  # 16 pixels times 1000 / 16


def test_clip_boxes_uses_each_image_size():
    boxes = torch.tensor([[-5.0, -5.0, 500.0, 500.0]]).expand(2, 3, 4)
    clipped = clip_boxes(boxes, torch.tensor([[10, 20], [30, 40]]))
    assert clipped[0].unique(dim=0).tolist() == [[0, 0, 19, 9]]
    assert clipped[1].unique(dim=0).tolist() == [[0, 0, 39, 29]]
