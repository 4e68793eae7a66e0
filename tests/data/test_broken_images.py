"""DATALOADER.BROKEN_IMAGES: what stands in for an image that cannot be read, and who hears of it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import broken_images, make_data_loader
from maskrcnn_benchmark.data.broken_images import report_broken_images
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.apps.tiny_run import tiny_run
from tests.data.test_build import assert_same_batch
from tests.data.tiny_coco import SIZES, TinyCoco

__all__ = ["tiny_run"]  # a fixture

ITERATIONS = 12


@pytest.fixture
def cfg(tiny: TinyCoco):
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = tiny.custom("mine")
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("mine",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32, 48, 64), 96
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 48, 80
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.BROKEN_IMAGES = "skip"
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.TEST.IMS_PER_BATCH = 2, ITERATIONS, 2
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = True, "cpu", 4
    return cfg


def damage(tiny: TinyCoco, *image_ids: int) -> list[str]:
    """Cut the files of some images; returns their names."""
    for image_id in image_ids:
        path = tiny.root / f"image_{image_id}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    return [f"image_{image_id}.jpg" for image_id in image_ids]


def batches_of(cfg, start_iter: int = 0) -> list:
    return list(make_data_loader(cfg, start_iter=start_iter)[0])


def samples_of(batches: list) -> dict[tuple[int, int], tuple]:
    """(iteration, place) to (index, pixels of the image alone)."""
    found = {}
    for iteration, (images, _, indices) in enumerate(batches):
        for place, index in enumerate(indices):
            height, width = images.image_sizes[place]
            found[iteration, place] = (index, images.tensors[place, :, :height, :width])
    return found


def test_another_sample_takes_its_place_and_the_others_stay(cfg, tiny: TinyCoco) -> None:
    whole = samples_of(batches_of(cfg))
    damage(tiny, 5, 17)
    after = samples_of(batches_of(cfg))
    assert whole.keys() == after.keys()
    broken, upright = {0, 3}, {0, 1}  # images come as 5, 8, 11, 17, 42; of these 5 and 8 are upright
    replaced = 0
    for place, (index, pixels) in whole.items():
        if index in broken:
            replaced += 1
            assert after[place][0] not in broken
            assert (after[place][0] in upright) == (index in upright)
        else:
            assert after[place][0] == index
            assert torch.equal(after[place][1], pixels)
    assert replaced >= ITERATIONS // 2


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("start_iter", [0, 5])
def test_what_takes_its_place_depends_on_nothing_else(cfg, tiny: TinyCoco, num_workers: int, start_iter: int) -> None:
    damage(tiny, 5, 17)
    expected = batches_of(cfg)[start_iter:]
    cfg.DATALOADER.NUM_WORKERS = num_workers
    for first, second in zip(expected, batches_of(cfg, start_iter), strict=True):
        assert_same_batch(first, second)


def test_seed_and_epoch_choose(cfg, tiny: TinyCoco) -> None:
    damage(tiny, 17)
    cfg.SOLVER.MAX_ITER = 60

    def chosen() -> list[int]:
        dataset = make_data_loader(cfg)[0].dataset
        return [dataset.broken_images.read(dataset, SampleKey(epoch, 3))[1].index for epoch in range(12)]

    first = chosen()
    assert set(first) == {2, 4}, "the other lying images"
    assert first == chosen()
    cfg.SEED = 7
    assert first != chosen()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_report_names_and_counts_them(cfg, tiny: TinyCoco, caplog, num_workers: int) -> None:
    names = damage(tiny, 5, 17)
    cfg.DATALOADER.NUM_WORKERS = num_workers
    loader = make_data_loader(cfg)[0]
    taken = [index for *_, indices in loader for index in indices]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        report_broken_images(loader.dataset)
    (message,) = caplog.messages
    assert all(name in message for name in names)
    assert message.startswith("2 images could not be read, and others took their place ")
    # every epoch of five images asks for both, and the last one of the tries may ask for one of them again
    assert int(message.split("their place ")[1].split()[0]) >= 2 * (len(taken) // 6)
    caplog.clear()
    report_broken_images(loader.dataset)
    assert not caplog.messages, "what has been told is not told again"


def test_several_data_sets(cfg, tiny: TinyCoco) -> None:
    cfg.DATASETS.TRAIN = ("mine", "mine")
    damage(tiny, 8)
    for *_, indices in batches_of(cfg):
        assert not {1, 6} & set(indices)


def test_when_nothing_can_be_read_the_run_stops(cfg, tiny: TinyCoco) -> None:
    damage(tiny, *SIZES)
    with pytest.raises(ValueError, match=r"image_\d+.jpg is truncated.*64 images chosen in its place"):
        batches_of(cfg)


def test_by_default_the_run_stops(cfg, tiny: TinyCoco) -> None:
    damage(tiny, 5)
    cfg.DATALOADER.BROKEN_IMAGES = "stop"
    for is_train in (True, False):
        loaders = make_data_loader(cfg, is_train=is_train)
        with pytest.raises(ValueError, match=r"image_5.jpg is truncated"):
            list(loaders[0])
    cfg.DATALOADER.BROKEN_IMAGES = "perhaps"
    with pytest.raises(ValueError, match=r"DATALOADER.BROKEN_IMAGES must be one of stop, skip, got 'perhaps'"):
        make_data_loader(cfg)


class SeesEverything(torch.nn.Module):
    """Finds an object in the middle of every image."""

    def forward(self, images):
        found = []
        for height, width in images.image_sizes:
            boxes = BoxList(torch.tensor([[5.0, 5, 20, 20]]), (width, height))
            boxes.add_field("scores", torch.tensor([0.9]))
            boxes.add_field("labels", torch.tensor([1]))
            found.append(boxes)
        return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_testing_it_has_no_detections(cfg, tiny: TinyCoco, caplog, num_workers: int) -> None:
    (tiny.root / "image_11.jpg").unlink()
    damage(tiny, 300)
    cfg.DATALOADER.NUM_WORKERS = num_workers
    (loader,) = make_data_loader(cfg, is_train=False)
    found = compute_on_dataset(SeesEverything(), loader, "cpu")
    assert {index: len(boxes) for index, boxes in found.items()} == {0: 1, 1: 1, 2: 0, 3: 1, 4: 1, 5: 0}
    assert found[2].has_field("scores")
    assert found[2].size == (79, 44)  # (width, height): 90 x 50, resized
    report_broken_images(loader.dataset)
    assert caplog.messages[-1].startswith("2 images could not be read, and count as images without detections: ")
    assert "image_11.jpg, image_300.jpg" in caplog.messages[-1]


def test_an_image_of_another_size_is_broken_too(cfg, tiny: TinyCoco) -> None:
    path: Path = tiny.root / "image_8.jpg"
    os.replace(tiny.root / "image_300.jpg", path)
    indices = [index for *_, batch in batches_of(cfg) for index in batch]
    assert 1 not in indices
    assert np.isin([0, 2, 3, 4], indices).all()


def test_a_run_names_them_in_its_log(tiny_run) -> None:
    damage(tiny_run.data, 5, 300)
    keys = {"DATALOADER.BROKEN_IMAGES": "skip", "DATALOADER.NUM_WORKERS": 1, "SOLVER.CHECKPOINT_PERIOD": 9}
    tiny_run.train(keys=keys | {"SOLVER.MAX_ITER": 3})
    log = (tiny_run.output / "log.txt").read_text()
    trained = [line for line in log.splitlines() if "others took their place" in line]
    assert trained, "at the end of an epoch and of the run"
    assert all("1 images could not be read" in line and line.endswith("image_5.jpg") for line in trained)
    assert "2 images could not be read, and count as images without detections: image_300.jpg, image_5.jpg" in log
    assert "images have predictions; the others are left out" not in log


def test_all_processes_report_together(cfg, tiny: TinyCoco, caplog, monkeypatch) -> None:
    damage(tiny, 5)
    loader = make_data_loader(cfg)[0]
    loader.dataset[SampleKey(0, 0)]
    others = {f"{n:02d}.jpg": 2 for n in range(30)}
    monkeypatch.setattr(broken_images.comm, "all_gather", lambda own: [own, others, {"image_5.jpg": 4}])
    caplog.clear()
    report_broken_images(loader.dataset)
    (message,) = caplog.messages
    assert message.startswith("31 images could not be read, and others took their place 65 times: 00.jpg, 01.jpg, ")
    assert message.endswith("19.jpg and 11 more")
