"""Images that are made in their batch: the same bits as images that are made before, and who still gets those."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.data import make_data_loader, make_dataset
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset
from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.transforms import ColourJitter, Compose, Flip, Normalize, PendingImage, Resize
from tests.data.loader_checks import NAME, assert_same, encode, loader_cfg, train_batches
from tests.data.tiny_coco import TinyCoco

BYTES = Normalize((0, 0, 0), (1, 1, 1))


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def targets_of(height: int, width: int) -> ImageTargets:
    return ImageTargets(np.float32([[1, 2, 3, 4], [0, 0, width - 1, height - 1]]), np.array([2, 1]), (height, width))


@pytest.fixture
def eager_loaders(monkeypatch: pytest.MonkeyPatch):
    """``eager_loaders(call)``: what a call gives where all images are made before their batch."""

    def run(call):
        with monkeypatch.context() as patch:
            for kind in (DetectionDataset, ConcatDataset):
                patch.setattr(kind, "defer_images", lambda self: None)
            return call()

    return run


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((48, 64), (80, 106)),
        ((37, 53), (61, 200)),
        ((53, 37), (131, 91)),
        ((1, 1), (5, 7)),
        ((3, 200), (3, 201)),
        ((48, 64), (48, 64)),
        ((97, 131), (33, 45)),
        ((97, 131), (1, 1)),
        ((480, 640), (800, 1066)),
    ],
)
def test_written_pixels_are_those_of_resize_and_flip(size, scaled, mirrored) -> None:
    """Into any part of a larger array, at any address, and nowhere beside it."""
    image = image_of(*size)
    wanted = cv2.resize(image, scaled[::-1], interpolation=cv2.INTER_LINEAR)
    wanted = wanted[:: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
    pending = PendingImage(lambda: image, scaled, mirrored)
    for below, beside, shift in ((0, 0, 0), (3, 5, 1), (32, 22, 7)):
        height, width = scaled[0] + below, scaled[1] + beside
        memory = np.full(height * width * 3 + shift, 93, dtype=np.uint8)
        batch = memory[shift:].reshape(height, width, 3)
        pending.write(batch[: scaled[0], : scaled[1]])
        np.testing.assert_array_equal(batch[: scaled[0], : scaled[1]], wanted)
        batch[: scaled[0], : scaled[1]] = 93
        assert (memory == 93).all()
    np.testing.assert_array_equal(image, image_of(*size))


def made(image: np.ndarray | PendingImage) -> np.ndarray:
    """The pixels of a sample."""
    if isinstance(image, np.ndarray):
        return image
    out = np.zeros((*image.size, 3), dtype=np.uint8)
    image.write(out)
    return out


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("normalised", [False, True])
def test_loaders_yield_the_same_batches(tiny: TinyCoco, eager_loaders, monkeypatch, num_workers, normalised) -> None:
    grey = tiny.root / "image_42.jpg"
    grey.write_bytes(encode(cv2.imread(str(grey), cv2.IMREAD_GRAYSCALE), ".jpg"))
    path = tiny.root / "image_17.jpg"
    path.write_bytes(encode(cv2.imread(str(path)), ".png"))
    cfg = loader_cfg(tiny, DATALOADER__NUM_WORKERS=num_workers, INPUT__MIN_SIZE_TRAIN=(32, 75, 101))
    cfg.merge_from_list(["INPUT.MAX_SIZE_TRAIN", 173, "INPUT.SHAPE_BUCKETS", ((128, 192),)])
    if normalised:  # as networks of torchvision want it
        cfg.merge_from_list(["INPUT.TO_BGR255", False, "INPUT.PIXEL_MEAN", [0.485, 0.456, 0.406]])
        cfg.merge_from_list(["INPUT.PIXEL_STD", [0.229, 0.224, 0.225]])
    written = []
    write = PendingImage.write
    monkeypatch.setattr(PendingImage, "write", lambda self, out: (written.append(self.mirrored), write(self, out)))

    def batches() -> list:
        (testing,) = make_data_loader(cfg, is_train=False, keep_pixels=not normalised)
        return [*train_batches(cfg, keep_pixels=not normalised), *testing]

    expected = eager_loaders(batches)
    assert not written
    assert_same(batches(), expected)
    assert len({batch[0].tensors.shape for batch in expected}) > 1
    if num_workers == 0:
        assert len(set(written)) == 4, "all ways of mirroring occur"


def test_several_data_sets_as_one(tiny: TinyCoco, eager_loaders) -> None:
    cfg = loader_cfg(tiny)
    cfg.DATASETS.CUSTOM = tiny.custom(NAME) + tiny.custom("other")
    cfg.DATASETS.TRAIN = (NAME, "other")
    expected = eager_loaders(lambda: train_batches(cfg))
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    assert all(dataset.defers_images for dataset in loader.dataset.datasets)
    assert_same(list(loader), expected)


def test_images_and_pixels_may_share_a_batch() -> None:
    images = [image_of(30, 40), image_of(20, 50)]
    targets = [targets_of(60, 80), targets_of(20, 50)]
    pending = PendingImage(lambda: images[0], (60, 80), (True, False))
    mixed = BatchCollator(32)(list(zip((pending, images[1]), targets, (4, 5), strict=True)))
    plain = BatchCollator(32)(list(zip((made(pending), images[1]), targets, (4, 5), strict=True)))
    swapped = BatchCollator(32)(list(zip((images[1], pending), targets[::-1], (4, 5), strict=True)))
    assert mixed[0].tensors.equal(plain[0].tensors)
    assert swapped[0].tensors.flip(0).equal(plain[0].tensors)
    assert mixed[0].image_sizes == [(60, 80), (20, 50)]
    assert mixed[0].sizes.equal(plain[0].sizes)


def test_without_a_loader_samples_are_pixels(tiny: TinyCoco) -> None:
    dataset = make_dataset(loader_cfg(tiny), NAME, is_train=True)
    keys = [SampleKey(epoch, index) for epoch in range(6) for index in range(len(dataset))]
    before = [dataset[key] for key in keys]
    assert all(isinstance(image, np.ndarray) for image, _, _ in before)
    tensor = dataset[0][0]
    dataset.defer_images()
    assert dataset[0][0].equal(tensor), "what is published does not change"
    for key, (image, targets, index) in zip(keys, before, strict=True):
        pending, same, same_index = dataset[key]
        assert isinstance(pending, PendingImage)
        np.testing.assert_array_equal(made(pending), image)
        np.testing.assert_array_equal(same.boxes, targets.boxes)
        np.testing.assert_array_equal(same.polygons.coords, targets.polygons.coords)
        assert (same.image_size, same_index) == (targets.image_size, index)


@dataclasses.dataclass(frozen=True)
class Sees:
    """A step of a user's own, which looks at the image and paints on it."""

    seen: list

    def __call__(self, image, targets, draw):
        self.seen.append(image.shape)
        return 255 - image, targets


@dataclasses.dataclass(frozen=True)
class OwnResize(Resize):
    def __call__(self, image, targets, draw):
        image, targets = super().__call__(image, targets, draw)
        return image // 2, targets


class OwnCompose(Compose):
    def transform_pixels(self, image, targets, key):
        image, targets = super().transform_pixels(image, targets, key)
        return 255 - image, targets


class OwnSteps:
    """Transforms that share nothing with the package's."""

    def transform_pixels(self, image, targets, key):
        return cv2.resize(image, (160, 120)), targets.resize((120, 160))


def test_steps_of_ones_own_get_images_that_are_scaled(tiny: TinyCoco) -> None:
    seen: list = []
    big = Resize((120,), 0)
    own = [Compose([big, Sees(seen), Flip(0.5)], BYTES), Compose([OwnResize((120,), 0)], BYTES)]
    own += [Compose([Flip(0.5), big], BYTES), OwnCompose([big], BYTES), OwnSteps(), None]
    own += [Compose([big], BYTES, colour=ColourJitter(0.4, 0.4, 0.4, 0.1))]
    dataset = make_dataset(loader_cfg(tiny), NAME, is_train=True)
    key = SampleKey(0, 2)
    for transforms in own:
        dataset.transforms, dataset.defers_images = transforms, False
        wanted = dataset[key][0]
        dataset.defer_images()
        assert dataset.defers_images
        np.testing.assert_array_equal(dataset[key][0], wanted)
    assert seen == [(120, 216, 3)] * 2


def test_images_that_others_may_stand_in_for_are_made_before(tiny: TinyCoco) -> None:
    cfg = loader_cfg(tiny, DATALOADER__BROKEN_IMAGES="skip")
    loader, _ = make_data_loader(cfg)
    assert loader.dataset.defers_images
    assert isinstance(loader.dataset[SampleKey(0, 0)][0], np.ndarray)


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_pixels_of_another_type_are_taken_as_the_collator_takes_them(kind) -> None:
    """OpenCV writes such pixels elsewhere, not into the batch."""
    image = image_of(30, 40).astype(kind)
    for scaled in ((30, 40), (61, 83)):
        before = cv2.resize(image, scaled[::-1], interpolation=cv2.INTER_LINEAR)[:, ::-1]
        late = PendingImage(lambda: image, scaled, (True, False))
        (found, _, _), (wanted, _, _) = (BatchCollator(32)([(one, targets_of(*scaled), 0)]) for one in (late, before))
        assert found.tensors.equal(wanted.tensors)


def test_damaged_files_are_named_when_their_batch_is_made(tiny: TinyCoco) -> None:
    path = tiny.root / "image_17.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"image_17\.jpg is truncated"):
        train_batches(loader_cfg(tiny))
    path.write_bytes(encode(image_of(30, 40), ".jpg"))
    with pytest.raises(ValueError, match=r"image_17\.jpg is 40x30 pixels, but .* says 80x60"):
        train_batches(loader_cfg(tiny))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"image_17\.jpg does not exist"):
        train_batches(loader_cfg(tiny))


def test_data_sets_of_ones_own_see_pixels(tiny: TinyCoco) -> None:
    class OwnItems(COCODataset):
        def __getitem__(self, key):
            image, targets, index = super().__getitem__(key)
            return image[:, ::2], targets, index

    class OwnSamples(COCODataset):
        def make_sample(self, image, key):
            image, targets, index = super().make_sample(image, key)
            return image[::2], targets, index

    class OwnConcat(ConcatDataset):
        def __getitem__(self, key):
            image, targets, index = super().__getitem__(key)
            return image[::2, ::2], targets, index

    class OwnImages(COCODataset):
        def load_image(self, index):
            return 255 - super().load_image(index)

    plain, items, samples, images = (
        kind(str(tiny.ann_file), str(tiny.root), True, transforms=Compose([], BYTES))
        for kind in (COCODataset, OwnItems, OwnSamples, OwnImages)
    )
    whole = plain[SampleKey(0, 0)][0]
    cases = [(items, whole[:, ::2]), (samples, whole[::2]), (images, 255 - whole)]
    cases += [(OwnConcat([plain]), whole[::2, ::2])]
    for dataset, part in cases:
        dataset.defer_images()
        np.testing.assert_array_equal(dataset[SampleKey(0, 0)][0], part)
    both = ConcatDataset([items, plain])
    both.defer_images()
    np.testing.assert_array_equal(both[SampleKey(0, 0)][0], whole[:, ::2])
    assert isinstance(both[SampleKey(0, len(items))][0], PendingImage)
