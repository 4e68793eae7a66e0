"""The changed pictures of CALD: where things are in them, and that chance depends on the key alone."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.ymir.mining.views import covered_shares, cut_out, flipped, make_views, reduced, turned

SIZE = (90, 140)
BOXES = np.array([[20.0, 15.0, 60.0, 55.0], [70.0, 40.0, 120.0, 80.0]])


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (*SIZE, 3), dtype=np.uint8)


def painted(box: np.ndarray) -> np.ndarray:
    """White within a box of whole pixels, black elsewhere."""
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box.astype(int)
    image[y1:y2, x1:x2] = 255
    return image


def extent(image: np.ndarray) -> np.ndarray:
    """Edges of what is at least half white."""
    rows, columns = np.nonzero(image[..., 0] >= 128)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


@pytest.mark.parametrize("change", [flipped, turned, reduced])
def test_boxes_go_with_the_picture(change) -> None:
    for box in BOXES:
        view = change(painted(box), box[None])
        assert view.image.shape == (*SIZE, 3)
        np.testing.assert_allclose(view.boxes[0], extent(view.image), atol=1.5)


@pytest.mark.parametrize("change", [flipped, turned, reduced])
def test_boxes_go_with_the_picture_to_part_of_a_pixel(change) -> None:
    for box in BOXES:
        view = change(painted(box), box[None])
        weights = view.image[..., 0].astype(float)
        rows, columns = np.indices(SIZE) + 0.5
        middle = [(weights * at).sum() / weights.sum() for at in (columns, rows)]
        np.testing.assert_allclose((view.boxes[0, :2] + view.boxes[0, 2:]) / 2, middle, atol=0.03)


def test_what_is_left_empty_is_black() -> None:
    white = np.full((*SIZE, 3), 255, dtype=np.uint8)
    for change in (turned, reduced):
        assert (change(white, BOXES).image[-1, -1] == 0).all()


def test_mirrored_exactly() -> None:
    image = picture()
    view = flipped(image, BOXES)
    np.testing.assert_array_equal(view.image, image[:, ::-1])
    np.testing.assert_array_equal(view.boxes, [[80, 15, 120, 55], [20, 40, 70, 80]])
    again = flipped(view.image, view.boxes)
    np.testing.assert_array_equal(again.image, image)
    np.testing.assert_array_equal(again.boxes, BOXES)


def test_turned_as_pillow_turns() -> None:
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = np.kron(
        np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8)
    )
    theirs = image_module.fromarray(image).rotate(5, resample=image_module.Resampling.BILINEAR, expand=True)
    theirs = np.asarray(theirs.resize(SIZE[::-1], image_module.Resampling.BILINEAR)).astype(float)
    ours = turned(image, BOXES).image.astype(float)
    # Pillow rounds the turned size up to whole pixels, so fine patterns differ; large patches lie in the same place.
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97


def test_a_turned_box_is_the_hull_of_its_corners() -> None:
    whole = np.array([[0.0, 0.0, SIZE[1], SIZE[0]]])
    # All of the picture stays in view, so the hull of its border is the border.
    np.testing.assert_allclose(turned(picture(), whole).boxes, whole, atol=1e-9)
    np.testing.assert_allclose(turned(picture(), BOXES).boxes[:, 2:] - turned(picture(), BOXES).boxes[:, :2], [
        [width, height] for width, height in (hull_size(40.0, 40.0), hull_size(50.0, 40.0))
    ])  # fmt: skip


def hull_size(width: float, height: float) -> tuple[float, float]:
    angle = np.deg2rad(5)
    cosine, sine = np.cos(angle), np.sin(angle)
    scale_x = SIZE[1] / (SIZE[1] * cosine + SIZE[0] * sine)
    scale_y = SIZE[0] / (SIZE[0] * cosine + SIZE[1] * sine)
    return scale_x * (width * cosine + height * sine), scale_y * (height * cosine + width * sine)


def test_reduced_to_four_fifths_in_the_corner() -> None:
    view = reduced(picture(), BOXES)
    assert (view.image[72:] == 0).all()
    assert (view.image[:, 112:] == 0).all()
    assert (view.image[:72, :112].max(axis=2) > 0).all()
    np.testing.assert_allclose(view.boxes, BOXES * 0.8)


def test_cuts_hide_part_of_the_box_that_they_hide_most() -> None:
    counts = []
    for key in range(40):
        view = cut_out(picture(), BOXES, key=key)
        np.testing.assert_array_equal(view.boxes, BOXES)
        black = (view.image == 0).all(axis=2)
        np.testing.assert_array_equal(view.image[~black], picture()[~black])
        hidden = [black[int(y1) : int(y2), int(x1) : int(x2)].mean() for x1, y1, x2, y2 in BOXES]
        # Two cuts of at most 40 % each, in whole pixels.
        assert 0.1 <= max(hidden) <= 0.81
        assert 0.05**2 * 0.7 <= black.mean() <= 2 * 0.2**2
        counts.append(black.sum())
    assert len(set(counts)) > 20  # another key, other cuts


def test_no_cut_where_none_fits() -> None:
    # A box as large as the picture: a cut of a fifth of each side hides 4 % at most.
    whole = np.array([[0.0, 0.0, SIZE[1], SIZE[0]]])
    np.testing.assert_array_equal(cut_out(picture(), whole, key=0).image, picture())


def test_covered_shares_by_hand() -> None:
    cuts = np.array([[0, 0, 10, 10], [5, 0, 25, 10], [50, 50, 60, 60]])
    boxes = np.array([[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 20.0]])
    np.testing.assert_allclose(covered_shares(cuts, boxes), [[0.5, 0.5], [0.75, 0.25], [0, 0]])


def test_views_depend_on_the_key_alone() -> None:
    first, second, other = (make_views(picture(), BOXES, key=key) for key in (7, 7, 8))
    assert len(first) == 4
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert (first[1].image != other[1].image).any()


def test_the_picture_itself_stays() -> None:
    image, boxes = picture(), BOXES.copy()
    make_views(image, boxes, key=3)
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(boxes, BOXES)


def test_a_tiny_picture() -> None:
    image, boxes = np.full((1, 2, 3), 9, dtype=np.uint8), np.array([[0.0, 0.0, 1.0, 1.0]])
    assert all(view.image.shape == (1, 2, 3) for view in make_views(image, boxes, key=0))
