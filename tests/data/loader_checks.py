"""What the tests of the loaders share: a small config, the comparison of batches, and a decoder that is OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import build, make_data_loader
from maskrcnn_benchmark.data.loaders.encoded import EncodedBatch
from maskrcnn_benchmark.structures.image_list import ImageList
from tests.data.tiny_coco import TinyCoco

NAME = "tiny_of_mine"
MORE_WORKERS_THAN_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")


def loader_cfg(tiny: TinyCoco, **keys):
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = tiny.custom(NAME)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (NAME,)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32, 48, 64), 96
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 48, 80
    cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN = 0.5
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.SIZE_DIVISIBILITY = 0, 32
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.TEST.IMS_PER_BATCH = 2, 8, 2
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = True, "cpu", 4
    cfg.merge_from_list([part for name, value in keys.items() for part in (name.replace("__", "."), value)])
    return cfg


def train_batches(cfg, start_iter: int = 0, *, keep_pixels: bool = True, **kwargs) -> list:
    return list(make_data_loader(cfg, start_iter=start_iter, keep_pixels=keep_pixels, **kwargs)[0])


def shares_of_two(cfg, monkeypatch, **kwargs) -> list[list]:
    """What each of two processes would load."""
    monkeypatch.setattr(build, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(build, "get_rank", lambda rank=rank: rank)
        shares.append(train_batches(cfg, is_distributed=True, **kwargs))
    monkeypatch.undo()
    return shares


def assert_same_samples(found, expected) -> None:
    """Sequence, sizes and targets to the last bit, and all of the images but their values."""
    assert [batch[2] for batch in found] == [batch[2] for batch in expected]
    for (images, targets, _), (wanted, wanted_targets, _) in zip(found, expected, strict=True):
        assert images.image_sizes == wanted.image_sizes == targets.image_sizes
        assert torch.equal(images.sizes.cpu(), wanted.sizes)
        assert images.tensors.shape == wanted.tensors.shape
        assert images.tensors.dtype == wanted.tensors.dtype
        assert images.tensors.stride() == wanted.tensors.stride()
        for name in ("boxes", "labels", "polygons.coords", "polygons.ring_offsets", "polygons.instance_offsets"):
            first, second = targets, wanted_targets
            for part in name.split("."):
                first, second = getattr(first, part), getattr(second, part)
            assert torch.equal(first, second), name
        for n, (height, width) in enumerate(images.image_sizes):
            assert not images.tensors[n, :, height:].any()
            assert not images.tensors[n, :, :, width:].any()


def assert_same(found, expected) -> None:
    """Everything to the last bit."""
    assert_same_samples(found, expected)
    for (images, _, _), (wanted, _, _) in zip(found, expected, strict=True):
        assert torch.equal(images.tensors, wanted.tensors)


def differences(found, expected) -> tuple[float, int]:
    """Mean and largest absolute difference of the pixels inside the images, in levels of 0 .. 255."""
    total, count, largest = 0.0, 0, 0
    for (images, _, _), (wanted, _, _) in zip(found, expected, strict=True):
        for n, (height, width) in enumerate(images.image_sizes):
            one, other = (item.tensors[n, :, :height, :width].cpu().int() for item in (images, wanted))
            apart = (one - other).abs()
            total, count, largest = total + float(apart.sum()), count + apart.numel(), max(largest, int(apart.max()))
    return total / count, largest


class OpenCVDecoder:
    """Does what the decoders do, with the functions that the workers use: the same bits must come out.

    ``seen`` holds the indices of the batches that it was given.
    """

    def __init__(self, device: torch.device, *, num_threads: int = 1) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, batch: EncodedBatch) -> ImageList:
        self.seen.append(batch.indices)
        out = torch.zeros((len(batch), *batch.shape, 3), dtype=torch.uint8)
        sizes = batch.targets.image_sizes
        for file, pixels, (height, width), (left_right, upside_down) in zip(
            batch.files(), out.numpy(), sizes, batch.mirrored, strict=True
        ):
            image = cv2.imdecode(file.numpy(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            image = image[:: -1 if upside_down else 1, :: -1 if left_right else 1]
            pixels[:height, :width] = image
        return ImageList(out.permute(0, 3, 1, 2), sizes)


def encode(image: np.ndarray, suffix: str, *options: int) -> bytes:
    """An image file's bytes."""
    return cv2.imencode(suffix, image, list(options))[1].tobytes()
