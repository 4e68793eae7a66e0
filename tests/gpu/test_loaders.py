"""Files decoded on the GPU: the samples and targets of the workers, and images within the stated tolerance."""

from __future__ import annotations

import logging

import pytest
import torch

from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.loaders import DecodingLoader
from maskrcnn_benchmark.data.loaders.backends import what_dali_lacks, what_nvjpeg_lacks
from maskrcnn_benchmark.data.loaders.device_images import DeviceImages
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Prefetcher, Preparation
from tests.data.loader_checks import (
    assert_same,
    assert_same_samples,
    differences,
    loader_cfg,
    shares_of_two,
    train_batches,
)
from tests.data.tiny_coco import TinyCoco, write_tiny_coco

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")]

CUDA = torch.device("cuda")
MEAN = {"dali": 1.0, "nvjpeg": 2.0}  # levels of 0 .. 255 on photos, docs/data_loading.md


@pytest.fixture
def tiny(tmp_path) -> TinyCoco:
    return write_tiny_coco(tmp_path / "tiny")


@pytest.fixture(params=["dali", "nvjpeg"])
def backend(request) -> str:
    lacks = what_dali_lacks() if request.param == "dali" else what_nvjpeg_lacks(CUDA)
    if lacks:
        pytest.skip(f"{request.param} is not there: {lacks}")
    return request.param


@pytest.fixture
def cfg(tiny: TinyCoco):
    return loader_cfg(tiny, MODEL__DEVICE="cuda")


@pytest.fixture(autouse=True)
def _no_warning(caplog):
    """No batch is decoded by OpenCV in the backend's place."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records if "instead" in record.getMessage()] == []


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_samples_are_those_of_the_workers(cfg, backend, num_workers: int) -> None:
    cfg.DATALOADER.BACKEND = "workers"
    expected = train_batches(cfg)
    cfg.merge_from_list(["DATALOADER.BACKEND", backend, "DATALOADER.NUM_WORKERS", num_workers])
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    assert isinstance(loader, DecodingLoader)
    found = list(loader)
    assert all(images.tensors.is_cuda for images, _, _ in found)
    assert_same_samples(found, expected)
    assert_same(list(loader), found)


def test_two_processes_and_a_resume(cfg, backend, monkeypatch) -> None:
    cfg.DATALOADER.BACKEND = "workers"
    expected = shares_of_two(cfg, monkeypatch)
    cfg.merge_from_list(["DATALOADER.BACKEND", backend, "DATALOADER.NUM_WORKERS", 1])
    whole = shares_of_two(cfg, monkeypatch)
    resumed = shares_of_two(cfg, monkeypatch, start_iter=3)
    for rank in range(2):
        assert_same_samples(whole[rank], expected[rank])
        assert_same(resumed[rank], whole[rank][3:])


def test_the_best_backend_is_taken_by_itself(cfg, backend) -> None:
    assert isinstance(make_data_loader(cfg)[0], DecodingLoader)
    cfg.DATALOADER.HYBRID = False
    assert not isinstance(make_data_loader(cfg)[0], DecodingLoader)


@pytest.mark.parametrize("keep_pixels", [True, False])
def test_what_late_steps_read_is_their_own_batch(cfg, backend, keep_pixels: bool) -> None:
    """Batches are prepared on a side stream and read long after others were decoded: no memory is given away early."""
    cfg.merge_from_list(["DATALOADER.BACKEND", backend, "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 40])
    normalize = make_device_normalize(cfg, CUDA) if keep_pixels else None
    prepare = Preparation(Precision("cuda"), CUDA, normalize)
    expected = [prepare(batch)[0].tensors.cpu() for batch in make_data_loader(cfg, keep_pixels=keep_pixels)[0]]
    loader, _ = make_data_loader(cfg, keep_pixels=keep_pixels)
    seen = []
    for images, _, _ in Prefetcher(loader, prepare, CUDA, overlap=keep_pixels):
        torch.cuda._sleep(20_000_000)  # cycles, some 10 ms
        seen.append((images.tensors.clone(), images.sizes.clone(), images.image_sizes))
        del images
    for (tensors, sizes, image_sizes), wanted in zip(seen, expected, strict=True):
        assert torch.equal(tensors.cpu(), wanted)
        assert [tuple(size) for size in sizes.tolist()] == list(image_sizes)


def test_images_of_another_stream_are_copied() -> None:
    images = DeviceImages(torch.ones(1, 3, 4, 4, dtype=torch.uint8, device=CUDA), [(4, 4)])
    taken = images.to(CUDA, non_blocking=True, memory_format=torch.channels_last)
    images.tensors.zero_()
    images.sizes.zero_()
    assert taken.tensors.all()
    assert taken.sizes.tolist() == [[4, 4]]
    assert images.to(dtype=torch.float32).tensors.dtype == torch.float32


def test_real_photos(backend, external_data) -> None:
    """80 photos of COCO within the figures of docs/data_loading.md."""
    from maskrcnn_benchmark.config import cfg as global_cfg

    cfg = global_cfg.clone()
    cfg.DATASETS.DATA_DIR = str(external_data("coco_tiny"))
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = ("coco_2017_train",), 4, 20
    cfg.DATALOADER.NUM_WORKERS, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, cfg.MODEL.MASK_ON = 2, 81, True
    cfg.DATALOADER.BACKEND = "workers"
    expected = train_batches(cfg)
    cfg.DATALOADER.BACKEND = backend
    found = train_batches(cfg)
    assert_same_samples(found, expected)
    mean, largest = differences(found, expected)
    assert mean <= MEAN[backend], f"largest {largest}"
