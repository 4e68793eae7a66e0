"""Batches on their way from a worker to the training process."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.image_targets import ImageKeypoints, ImagePolygons, ImageTargets
from maskrcnn_benchmark.data.transforms import Normalize


def sample(index: int, *, polygons: bool, keypoints: bool) -> tuple[np.ndarray, ImageTargets, int]:
    """A picture and index + 1 objects."""
    rng = np.random.default_rng(index)
    count, size = index + 1, (20 + 9 * index, 50 - 7 * index)
    points = ImageKeypoints(rng.random((count, 4, 3), dtype=np.float32), np.array([1, 0, 3, 2])) if keypoints else None
    rings = ImagePolygons(rng.random((3 * count, 2), dtype=np.float32), np.arange(count + 1) * 3, np.arange(count + 1))
    targets = ImageTargets(
        rng.random((count, 4), dtype=np.float32), np.arange(1, count + 1), size, rings if polygons else None, points
    )
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8), targets, index


def tensors_of(batch) -> dict[str, torch.Tensor | None]:
    images, targets, _ = batch
    parts = {"images": images.tensors, "sizes": images.sizes, "boxes": targets.boxes, "labels": targets.labels}
    parts["keypoints"] = targets.keypoints
    for name in ("coords", "ring_offsets", "instance_offsets"):
        parts[name] = getattr(targets.polygons, name) if targets.polygons is not None else None
    return parts


def assert_same_batch(found, expected) -> None:
    assert found[2] == expected[2]
    assert found[0].image_sizes == expected[0].image_sizes
    assert found[1].image_sizes == expected[1].image_sizes
    for (name, one), other in zip(tensors_of(found).items(), tensors_of(expected).values(), strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert (one.dtype, one.stride()) == (other.dtype, other.stride()), name
            assert torch.equal(one, other), name


@pytest.mark.parametrize(("polygons", "keypoints"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("normalize", [None, Normalize((1, 2, 3), (1, 1, 2))])
def test_a_batch_of_a_worker_equals_one_made_here(normalize, polygons, keypoints):
    samples = [sample(index, polygons=polygons, keypoints=keypoints) for index in range(4)]
    collate = BatchCollator(32, normalize=normalize)
    loader = DataLoader(samples, batch_size=2, collate_fn=collate, num_workers=1)
    batches = list(loader)  # all are held at once: memory that were used again would show
    for found, first in zip(batches, (0, 2), strict=True):
        assert_same_batch(found, collate(samples[first : first + 2]))


def test_a_batch_travels_in_two_blocks_of_shared_memory():
    samples = [sample(index, polygons=True, keypoints=True) for index in range(2)]
    (batch,) = DataLoader(samples, batch_size=2, collate_fn=BatchCollator(32), num_workers=1)
    tensors = tensors_of(batch)
    assert not tensors.pop("sizes").is_shared()
    assert tensors["images"].is_shared()
    storages = {name: tensor.untyped_storage().data_ptr() for name, tensor in tensors.items()}
    assert len(set(storages.values())) == 2
    assert list(storages.values()).count(storages["images"]) == 1


def test_what_is_beside_the_images_is_zero_in_shared_memory_too():
    samples = [sample(index, polygons=True, keypoints=False) for index in (0, 3)]
    (batch,) = DataLoader(samples, batch_size=2, collate_fn=BatchCollator(64), num_workers=1)
    for pixels, (picture, _, _) in zip(batch[0].tensors.permute(0, 2, 3, 1), samples, strict=True):
        height, width = picture.shape[:2]
        assert torch.equal(pixels[:height, :width], torch.from_numpy(picture))
        assert pixels.count_nonzero() == np.count_nonzero(picture)


def test_tensors_of_another_device_travel_as_torch_sends_them():
    targets = BatchCollator()([sample(1, polygons=True, keypoints=False)])[1].to("meta")
    sent = pickle.loads(ForkingPickler.dumps(targets))
    assert sent.boxes.device.type == sent.polygons.coords.device.type == "meta"
    assert sent.boxes.shape == targets.boxes.shape
