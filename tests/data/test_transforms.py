from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data.collate_batch import BatchCollator, pack_targets
from maskrcnn_benchmark.data.image_targets import ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.transforms import Compose, Flip, ImagePreparer, Normalize, Resize, build_transforms
from maskrcnn_benchmark.data.transforms.transforms import resized_size
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.targets import Targets

MEAN, STD = (102.9801, 115.9465, 122.7717), (1.0, 2.0, 57.0)


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def targets_of(height: int, width: int) -> ImageTargets:
    """Three objects: one ring, none, two rings."""
    return ImageTargets(
        boxes=np.float32([[1, 2, 30, 41], [0, 0, width - 1, height - 1], [5.25, 7.5, 20.75, 19]]),
        labels=np.array([2, 1, 3]),
        image_size=(height, width),
        polygons=ImagePolygons(
            coords=np.float32(
                [[1, 2], [31, 2], [31, 42], [5, 7], [21, 7.5], [9.25, 20], [6, 8], [9, 8], [9, 9], [6, 9]]
            ),
            ring_offsets=np.array([0, 3, 6, 10]),
            instance_offsets=np.array([0, 1, 1, 3]),
        ),
    )


@pytest.mark.parametrize(
    ("size", "min_size", "max_size", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),  # 1066.67 is truncated
        ((640, 480), 800, 1333, (1066, 800)),
        ((425, 640), 800, 1333, (800, 1204)),  # 1204.7
        ((400, 1000), 800, 1333, (533, 1332)),  # limited: round(1333 * 0.4) = 533, int(533 * 2.5) = 1332
        ((1000, 400), 800, 1333, (1332, 533)),
        ((800, 1066), 800, 1333, (800, 1066)),
        ((1200, 1200), 800, 1333, (800, 800)),
        ((480, 640), 800, 0, (800, 1066)),
        ((1, 5000), 800, 1333, (1, 5000)),  # cannot be smaller than one pixel
        ((2, 5000), 800, 1333, (1, 2500)),
    ],
)
def test_resized_size(size, min_size: int, max_size: int, expected) -> None:
    assert resized_size(size, min_size=min_size, max_size=max_size) == expected


def test_geometry_equals_that_of_boxlists() -> None:
    targets = targets_of(50, 40)
    boxlist = pack_targets([targets])[0]
    cases = {
        "resize": (targets.resize((80, 70)), boxlist.resize((70, 80))),
        "left_right": (targets.flip_left_right(), boxlist.transpose(0)),
        "top_bottom": (targets.flip_top_bottom(), boxlist.transpose(1)),
    }
    for name, (ours, expected) in cases.items():
        ours = pack_targets([ours])[0]
        assert ours.size == expected.size, name
        torch.testing.assert_close(ours.bbox, expected.bbox, msg=name)
        for first, second in zip(
            ours.get_field("masks").instances.polygons, expected.get_field("masks").instances.polygons, strict=True
        ):
            for a, b in zip(first.polygons, second.polygons, strict=True):
                torch.testing.assert_close(a.reshape(-1), b.reshape(-1), msg=name)


def test_flip_by_hand() -> None:
    flipped = targets_of(50, 40).flip_left_right()
    assert flipped.boxes[0].tolist() == [9, 2, 38, 41]
    assert flipped.polygons.coords[0].tolist() == [38, 2]
    twice = flipped.flip_left_right()
    np.testing.assert_array_equal(twice.boxes, targets_of(50, 40).boxes)
    np.testing.assert_array_equal(twice.polygons.coords, targets_of(50, 40).polygons.coords)


def test_flip_moves_pixels_as_it_moves_boxes() -> None:
    image = image_of(50, 40)
    flipped, targets = Flip(1.0)(image, targets_of(50, 40), 0.5)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    x1, y1, x2, y2 = targets.boxes[0].astype(int)
    np.testing.assert_array_equal(flipped[y1 : y2 + 1, x1 : x2 + 1], image[2:42, 1:31][:, ::-1])
    flipped, _ = Flip(1.0, vertical=True)(image, None, 0.5)
    np.testing.assert_array_equal(flipped, image[::-1])
    same, _ = Flip(0.5)(image, None, 0.5)
    np.testing.assert_array_equal(same, image)


def test_resize_is_bilinear_of_opencv() -> None:
    image = image_of(48, 64)
    out, _ = Resize((80,), 1333)(image, None, 0.0)
    np.testing.assert_array_equal(out, cv2.resize(image, (106, 80), interpolation=cv2.INTER_LINEAR))
    assert [Resize((10, 20, 30), 0)(image, None, draw)[0].shape[0] for draw in (0.0, 0.34, 0.99)] == [10, 20, 30]


def test_normalize_bgr255() -> None:
    image = image_of(7, 9)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    expected = (torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std
    torch.testing.assert_close(Normalize(MEAN, STD)(image), expected, rtol=0, atol=0)


def test_normalize_rgb_in_0_to_1() -> None:
    image = image_of(7, 9)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).double() / 255
    expected = (rgb - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(Normalize(mean, std, to_bgr255=False)(image).double(), expected, rtol=1e-5, atol=1e-5)


def test_normalize_takes_views_and_pixels_that_must_not_change() -> None:
    image, normalize = image_of(7, 9), Normalize(MEAN, STD)
    frozen = image.copy()
    frozen.flags.writeable = False
    for view, same in ((image[:, ::-1], image[:, ::-1].copy()), (image[::2], image[::2].copy()), (frozen, image)):
        torch.testing.assert_close(normalize(view), normalize(same), rtol=0, atol=0)
    np.testing.assert_array_equal(frozen, image)


def test_augmentation_depends_on_the_key_alone() -> None:
    compose = Compose([Resize((24, 32, 48), 0), Flip(0.5), Flip(0.5, vertical=True)], Normalize(MEAN, STD), seed=3)
    image = image_of(24, 30)

    def outcome(seed: int, epoch: int, index: int) -> bytes:
        compose.seed = seed
        pixels, _ = compose.transform_pixels(image, None, SampleKey(epoch, index))
        return bytes(pixels.shape) + pixels.tobytes()

    keys = [(seed, epoch, index) for seed in range(2) for epoch in range(3) for index in range(20)]
    outcomes = {key: outcome(*key) for key in keys}
    assert len(set(outcomes.values())) == 12  # all of 3 sizes x 2 x 2 flips occur
    assert all(outcome(*key) == outcomes[key] for key in reversed(keys))


def test_call_is_pixels_then_normalisation() -> None:
    cfg = global_cfg.clone()
    cfg.INPUT.MIN_SIZE_TRAIN = (40, 60)
    compose = build_transforms(cfg, is_train=True)
    key = SampleKey(2, 5)
    tensor, targets = compose(image_of(50, 40), targets_of(50, 40), key)
    pixels, same = compose.transform_pixels(image_of(50, 40), targets_of(50, 40), key)
    torch.testing.assert_close(tensor, Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)(pixels), rtol=0, atol=0)
    np.testing.assert_array_equal(targets.boxes, same.boxes)
    assert targets.image_size == tuple(tensor.shape[1:])


def test_image_preparer_is_the_test_transform() -> None:
    cfg = global_cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 60, 100
    image = image_of(48, 64)
    tensor, size = ImagePreparer.from_config(cfg)(image)
    assert size == tuple(tensor.shape[1:]) == (60, 80)
    expected, _ = build_transforms(cfg, is_train=False)(image, None)
    torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match=r"an image must be uint8 \[H, W, 3\] in BGR, got"):
            ImagePreparer.from_config(cfg)(wrong)


def test_sizes_must_be_positive() -> None:
    cfg = global_cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST = 0
    with pytest.raises(ValueError, match=r"INPUT.MIN_SIZE_TEST must hold .* positive lengths in pixels, got \(0,\)"):
        build_transforms(cfg, is_train=False)


def test_packed_targets_equal_those_of_boxlists() -> None:
    empty = ImageTargets(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        image_size=(30, 30),
        polygons=ImagePolygons(np.zeros((0, 2), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64)),
    )
    for images in ([targets_of(50, 40), empty, targets_of(60, 40)], [empty, empty]):
        ours = pack_targets(images)
        expected = Targets.from_boxlists([pack_targets([item])[0] for item in images])
        assert ours.image_sizes == expected.image_sizes
        torch.testing.assert_close(ours.boxes, expected.boxes)
        torch.testing.assert_close(ours.labels, expected.labels)
        assert ours.polygons.instance_offsets.shape == (ours.labels.numel() + 1,)
        for name in ("coords", "ring_offsets", "instance_offsets"):
            torch.testing.assert_close(getattr(ours.polygons, name), getattr(expected.polygons, name))


def test_polygons_only_when_all_images_have_them() -> None:
    without = ImageTargets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (30, 30))
    assert pack_targets([targets_of(50, 40), without]).polygons is None


def test_both_collators_make_the_same_batch() -> None:
    images = [image_of(33, 50), image_of(40, 20, seed=1)]
    targets = [targets_of(33, 50), targets_of(40, 20)]
    normalize = Normalize(MEAN, STD)
    direct = BatchCollator(32, normalize=normalize)(list(zip(images, targets, (7, 9), strict=True)))
    tensors = [normalize(image) for image in images]
    plain = BatchCollator(32)(list(zip(tensors, targets, (7, 9), strict=True)))
    boxlists = BatchCollator(32)(
        [(tensor, pack_targets([item])[0], i) for tensor, item, i in zip(tensors, targets, (7, 9), strict=True)]
    )
    expected = to_image_list(tensors, 32)
    for image_list, batch_targets, indices in (direct, plain, boxlists):
        assert indices == (7, 9)
        assert image_list.tensors.shape == (2, 3, 64, 64)
        assert list(image_list.image_sizes) == [(33, 50), (40, 20)]
        torch.testing.assert_close(image_list.tensors, expected.tensors, rtol=0, atol=0)
        torch.testing.assert_close(batch_targets.boxes, direct[1].boxes, rtol=0, atol=0)
        torch.testing.assert_close(batch_targets.polygons.coords, direct[1].polygons.coords, rtol=0, atol=0)
