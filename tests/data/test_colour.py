"""Colour jitter against pixel-wise formulas and Pillow; its draws; with sizes and flips through the loader."""

from __future__ import annotations

import colorsys
import itertools

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_data_loader, make_dataset
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.transforms import ColourJitter, build_transforms
from maskrcnn_benchmark.data.transforms.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from tests.data.tiny_coco import TinyCoco

ADJUSTMENTS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
SCALES = ("brightness", "contrast", "saturation")


def image_of(height: int = 12, width: int = 17) -> np.ndarray:
    """Random colours, with black, white, grey and pure ones among them."""
    image = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[0, :7] = [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 255, 0), (0, 0, 255), (1, 0, 2)]
    return image


def plain(name: str, image: np.ndarray, factor: float) -> np.ndarray:
    """The definitions, pixel by pixel, in floating point."""
    grey = np.rint(image @ np.array([0.114, 0.587, 0.299]))
    out = np.empty(image.shape)
    for y, x in np.ndindex(image.shape[:2]):
        b, g, r = image[y, x] / 255
        if name == "hue":
            h, s, v = colorsys.rgb_to_hsv(r, g, b)
            out[y, x] = [255 * level for level in colorsys.hsv_to_rgb((h + factor) % 1, s, v)[::-1]]
        else:
            other = {"brightness": 0.0, "contrast": np.floor(grey.mean() + 0.5), "saturation": grey[y, x]}[name]
            out[y, x] = other + factor * (image[y, x] - other)
    return out.clip(0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.35, 1.0, 1.7])
@pytest.mark.parametrize("name", SCALES)
def test_scales_equal_their_definition(name: str, factor: float) -> None:
    image = image_of()
    before = image.copy()
    out = ADJUSTMENTS[name](image, factor)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    assert np.abs(out - plain(name, image, factor)).max() <= (0.5 if name != "saturation" else 1.0) + 1e-6
    if factor == 1.0:
        np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_turns_as_defined(turn: float) -> None:
    image = image_of()
    assert np.abs(adjust_hue(image, turn) - plain("hue", image, turn)).max() <= 0.51


def test_pure_colours_turn_into_one_another() -> None:
    red, green, blue = ([0, 0, 255], [0, 255, 0], [255, 0, 0])
    image = np.uint8([[red, green, blue]])
    np.testing.assert_array_equal(adjust_hue(image, 1 / 3), np.uint8([[green, blue, red]]))
    np.testing.assert_array_equal(adjust_hue(image, -1 / 3), np.uint8([[blue, red, green]]))


def test_equals_pillow() -> None:
    pil = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    image = image_of(40, 50)
    picture = pil.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    enhancers = {"brightness": enhance.Brightness, "contrast": enhance.Contrast, "saturation": enhance.Color}
    for name, factor in itertools.product(SCALES, (0.2, 0.8, 1.3)):
        expected = np.asarray(enhancers[name](picture).enhance(factor))[..., ::-1]
        out = ADJUSTMENTS[name](image, factor)
        assert np.abs(out.astype(int) - expected).max() <= (2 if name == "saturation" else 1), (name, factor)


def test_factors_and_order_follow_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, float]] = []
    for name in ADJUSTMENTS:
        monkeypatch.setattr(
            f"maskrcnn_benchmark.data.transforms.colour.adjust_{name}",
            lambda image, factor, name=name: calls.append((name, factor)) or image,
        )
    jitter = ColourJitter(brightness=0.4, contrast=2.0, saturation=0.1, hue=0.2)

    def run(*draws: float) -> list[tuple[str, float]]:
        calls.clear()
        jitter(image_of(), draws)
        return list(calls)

    assert dict(run(0.0, 0.0, 0.0, 0.0, 0.0)) == pytest.approx(
        {"brightness": 0.6, "contrast": 0.0, "saturation": 0.9, "hue": -0.2}
    )
    assert dict(run(0.0, 0.5, 0.5, 0.5, 0.75)) == pytest.approx(
        {"brightness": 1.0, "contrast": 1.5, "saturation": 1.0, "hue": 0.1}
    )
    orders = [tuple(name for name, _ in run((k + 0.5) / 24, 0.1, 0.1, 0.1, 0.1)) for k in range(24)]
    assert set(orders) == set(itertools.permutations(ADJUSTMENTS))


def test_a_strength_of_zero_leaves_the_property_alone() -> None:
    assert not ColourJitter()
    image = image_of()
    out = ColourJitter(hue=0.3)(image, (0.3, 0.9, 0.9, 0.9, 0.5 + 0.5 / 3))
    np.testing.assert_array_equal(out, adjust_hue(image, 0.1))


@pytest.mark.parametrize(
    ("key", "value", "needed"), [("BRIGHTNESS", -0.1, "0 or more"), ("HUE", 0.6, "0 to 0.5"), ("HUE", -0.1, "0 to 0.5")]
)
def test_strengths_out_of_range(key: str, value: float, needed: str) -> None:
    cfg = global_cfg.clone()
    cfg.INPUT[key] = value
    with pytest.raises(ValueError, match=rf"INPUT\.{key} must be {needed}.* but is {value}"):
        build_transforms(cfg)
    build_transforms(cfg, is_train=False)


def test_only_colours_change_and_only_in_training() -> None:
    cfg = global_cfg.clone()
    cfg.INPUT.MIN_SIZE_TRAIN = (20, 30, 40)
    cfg.INPUT.MIN_SIZE_TEST = 30
    plain_train, plain_test = build_transforms(cfg), build_transforms(cfg, is_train=False)
    cfg.INPUT.BRIGHTNESS, cfg.INPUT.HUE = 0.5, 0.1
    train, test = build_transforms(cfg), build_transforms(cfg, is_train=False)
    image = image_of(24, 30)
    pixels = []
    for index in range(6):
        key = SampleKey(1, index)
        coloured, plain_pixels = (compose.transform_pixels(image, None, key)[0] for compose in (train, plain_train))
        again = train.transform_pixels(image, None, key)[0]
        np.testing.assert_array_equal(coloured, again)
        assert coloured.shape == plain_pixels.shape  # size and flips keep their draws
        assert (coloured != plain_pixels).any()
        pixels.append(coloured.mean())
        np.testing.assert_array_equal(
            test.transform_pixels(image, None, key)[0], plain_test.transform_pixels(image, None, key)[0]
        )
    assert len(set(pixels)) == 6


def test_sizes_flips_and_colours_through_the_loader(tiny: TinyCoco) -> None:
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = tiny.custom("tiny_of_mine")
    cfg.DATASETS.TRAIN = ("tiny_of_mine",)
    cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = "cpu", 4
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40, 60, 80), 200
    cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN, cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN = 0.0, 1.0
    cfg.INPUT.BRIGHTNESS = cfg.INPUT.CONTRAST = cfg.INPUT.SATURATION = 0.4
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 0, 1, 30
    dataset = make_dataset(cfg, "tiny_of_mine", is_train=True)
    seen = set()
    for images, targets, (index,) in make_data_loader(cfg)[0]:
        height, width = images.image_sizes[0]
        seen.add(min(height, width))
        original = dataset.load_targets(index)
        scale = height / original.image_size[0]
        expected = original.boxes[:, [1, 3]] * scale
        boxes = targets.boxes[0, : len(original)].numpy()
        np.testing.assert_allclose(boxes[:, [1, 3]], (height - 1 - expected)[:, ::-1], rtol=1e-4, atol=1e-3)
    assert seen == {40, 60, 80}
