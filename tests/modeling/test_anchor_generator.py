from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.rpn.anchor_generator import AnchorGenerator, generate_anchors


def test_anchors_of_the_published_table():
    # the table of py-faster-rcnn's generate_anchors(), which counts pixels from 1
    expected = torch.tensor(
        [
            *([-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200]),
            *([-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264]),
            *([-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360]),
        ]
    )
    anchors = generate_anchors(16, (128, 256, 512), (0.5, 1, 2))
    torch.testing.assert_close(anchors, expected.double() - 1)


def test_grid_order_is_rows_columns_anchors():
    generator = AnchorGenerator((32,), (0.5, 1.0), (8,))
    (anchors,) = generator([torch.zeros(1, 1, 2, 3)])
    cell = generator.cell_anchors[0]
    assert anchors.shape == (2 * 3 * 2, 4)
    shift = torch.tensor([2 * 8.0, 1 * 8.0, 2 * 8.0, 1 * 8.0])  # column 2 of row 1
    torch.testing.assert_close(anchors[(1 * 3 + 2) * 2 + 1], cell[1] + shift)


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0, [True, False, False]), (5, [True, True, False]), (-1, [True] * 3)]
)
def test_visibility(threshold, expected):
    anchors = torch.tensor([[0.0, 0, 19, 9], [-4, 0, 10, 9], [0, 0, 10, 30]])
    generator = AnchorGenerator((32,), (1.0,), (8,), straddle_thresh=threshold)
    assert generator.visible(anchors, torch.tensor([[10, 20]]))[0].tolist() == expected


def test_sizes_and_strides_must_pair_up():
    with pytest.raises(ValueError, match=r"ANCHOR_SIZES has 2 entries and ANCHOR_STRIDE has 3"):
        AnchorGenerator((32, 64), (1.0,), (4, 8, 16))
