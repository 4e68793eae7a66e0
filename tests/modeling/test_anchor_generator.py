from __future__ import annotations

import pickle

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


def small_generator():
    return AnchorGenerator(sizes=(8, 16), anchor_strides=(4, 8), aspect_ratios=(1.0, 2.0))


def maps(height, width):
    return [torch.zeros(1, 1, height, width), torch.zeros(1, 1, -(-height // 2), -(-width // 2))]


def test_anchors_are_computed_once_for_a_shape(monkeypatch):
    generator = small_generator()
    calls = []
    original = generator.grid_anchors
    monkeypatch.setattr(generator, "grid_anchors", lambda sizes: calls.append(sizes) or original(sizes))
    features = maps(3, 5)
    first, second = generator(features), generator(features)
    assert len(calls) == 1
    for level, again, expected in zip(first, second, original([(3, 5), (2, 3)]), strict=True):
        assert torch.equal(level, expected)
        assert again.data_ptr() == level.data_ptr()
    generator(maps(5, 3))
    generator(features)
    assert calls == [[(3, 5), (2, 3)], [(5, 3), (3, 2)]]
    generator.double()
    assert generator(features)[0].dtype == torch.float64


def test_kept_anchors_are_few_and_follow_the_weights():
    generator = small_generator()
    for height in range(1, 40):
        generator(maps(height, 3))
    assert len(generator._cache) == 16
    state = generator.state_dict()
    before = generator(maps(39, 3))[0]
    generator.load_state_dict({name: 2 * cell for name, cell in state.items()})
    after = generator(maps(39, 3))[0]
    assert torch.equal(after[0], 2 * before[0])


def test_anchors_of_an_evaluation_serve_training():
    generator = small_generator()
    with torch.inference_mode():
        anchors = generator.concatenated(maps(3, 5))
    assert not anchors.is_inference()
    assert generator.concatenated(maps(3, 5)) is anchors


def test_a_generator_can_be_pickled():
    generator = small_generator()
    generator(maps(3, 5))
    copied = pickle.loads(pickle.dumps(generator))
    assert torch.equal(copied.concatenated(maps(3, 5)), generator.concatenated(maps(3, 5)))
