"""Drawing: colours apart, masks and boxes where they belong, labels inside the picture and off one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maskrcnn_benchmark.apps.drawing import (
    distinct_colours,
    draw_detections,
    draw_label,
    draw_mask,
    mask_montage,
    readable_scale,
    text_colour,
)

RED = (0, 0, 255)


def test_colours_are_distinct() -> None:
    colours = np.array(distinct_colours(12), dtype=float)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)]
    assert min(distances) > 40
    assert distinct_colours(3) == distinct_colours(12)[:3]


def test_mask_tints_inside_and_outlines_holes() -> None:
    canvas = np.full((40, 50, 3), 100, dtype=np.uint8)
    mask = np.zeros((40, 50), dtype=bool)
    mask[10:30, 10:40] = True
    mask[18:22, 20:30] = False
    draw_mask(canvas, mask, RED)
    assert (canvas[12, 12] == (60, 60, 162)).all()
    assert (canvas[10, 25] == RED).all()  # outer outline
    assert (canvas[17, 25] == RED).all()  # around the hole
    assert (canvas[20, 25] == 100).all()  # in the hole
    assert (canvas[5, 5] == 100).all()


def test_boxes_are_drawn_on_their_own_pixels_and_the_input_stays() -> None:
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    picture = draw_detections(image, np.array([[50, 60, 149, 139]]), ["a 0.90"], colours=[RED])
    assert not image.any()
    for y, x in ((60, 100), (139, 120), (100, 50), (100, 149)):
        assert (picture[y, x] == RED).all()
    assert not picture[100, 100].any()


def test_enlarged_picture() -> None:
    image = np.zeros((100, 120, 3), dtype=np.uint8)
    mask = np.zeros((1, 100, 120), dtype=bool)
    mask[0, 40:60, 30:50] = True
    picture = draw_detections(image, np.array([[30, 40, 49, 59]]), ["a"], masks=mask, colours=[RED], scale=4)
    assert picture.shape == (400, 480, 3)
    assert (picture[200, 120] == RED).all()  # left border: 30 * 4
    assert (picture[200, 199] == RED).all()  # right border: the last of the enlarged pixels of column 49
    assert picture[200, 160].any()  # tinted
    assert not picture[200, 210].any()


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 20), (280, 0, 299, 20), (0, 180, 30, 199), (0, 0, 299, 199), (-9, -9, 2, 2)]
)
def test_labels_stay_inside_the_picture(box: tuple[int, ...]) -> None:
    canvas = np.zeros((200, 300, 3), dtype=np.uint8)
    x, y, width, height = draw_label(canvas, "triangle 0.99", np.array(box), RED)
    assert x >= 0
    assert y >= 0
    assert x + width <= 300
    assert y + height <= 200
    assert canvas.any()


def test_labels_of_equal_boxes_do_not_cover_one_another() -> None:
    canvas = np.zeros((300, 300, 3), dtype=np.uint8)
    box = np.array([100, 100, 200, 200])
    plates: list[tuple[int, int, int, int]] = []
    for _ in range(4):
        plates.append(draw_label(canvas, "ring 0.9", box, RED, avoid=plates))
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(plates, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay


def test_letters_contrast_with_their_plate() -> None:
    assert text_colour((255, 255, 255)) == (0, 0, 0)
    assert text_colour((0, 0, 0)) == (255, 255, 255)


def test_no_detections_leaves_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = draw_detections(image, np.zeros((0, 4)), [], masks=np.zeros((0, 30, 40), dtype=bool))
    np.testing.assert_array_equal(picture, image)


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match="one length"):
        draw_detections(np.zeros((9, 9, 3), np.uint8), np.zeros((2, 4)), ["a"])


def test_montage_and_scale() -> None:
    masks = np.stack([np.full((40, 60), 255, np.uint8), np.zeros((40, 60), np.uint8)])
    grid = mask_montage(masks, columns=2)
    assert grid.shape == (40, 60, 3)
    assert not (grid[5, 5] == grid[5, 45]).all()
    assert (grid[5, 45] == grid[30, 5]).all()
    assert [readable_scale(np.zeros((side, side, 3))) for side in (100, 256, 480, 1000)] == [4, 2, 1, 1]
