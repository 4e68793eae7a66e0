"""DALI on the CPU beside the workers: the same sequences and targets, and images within the stated tolerance."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import random
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.loaders import DecodingLoader
from maskrcnn_benchmark.data.loaders.dali import DaliDecoder
from maskrcnn_benchmark.data.loaders.encoded import EncodedBatch, UndecodableError
from maskrcnn_benchmark.structures.targets import Targets
from tests.data.loader_checks import (
    MORE_WORKERS_THAN_CORES,
    OpenCVDecoder,
    assert_same,
    assert_same_samples,
    differences,
    encode,
    shares_of_two,
    train_batches,
)
from tests.data.tiny_coco import TinyCoco

pytestmark = [pytest.mark.extras, MORE_WORKERS_THAN_CORES]

MEAN, LARGEST = 0.2, 1  # levels of 0 .. 255, docs/data_loading.md


@pytest.fixture(autouse=True)
def _needs_dali() -> None:
    pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed: pip install 'maskrcnn_benchmark[dali]'")


@pytest.fixture(autouse=True)
def _no_warning(caplog):
    """No batch is decoded by OpenCV in DALI's place, unless a test says so."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records if "instead" in record.getMessage()] == []


def assert_close(found, expected) -> None:
    assert_same_samples(found, expected)
    mean, largest = differences(found, expected)
    assert mean <= MEAN
    assert largest <= LARGEST


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_equals_the_workers(cfg, num_workers: int) -> None:
    expected = train_batches(cfg)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", num_workers])
    loader, _ = make_data_loader(cfg, keep_pixels=True)
    assert isinstance(loader, DecodingLoader)
    found = list(loader)
    assert_close(found, expected)
    assert_same(list(loader), found)  # the same bits when it is gone through again


def test_two_processes_and_a_resume_at_any_iteration(cfg, monkeypatch) -> None:
    expected = shares_of_two(cfg, monkeypatch)
    cfg.merge_from_list(["DATALOADER.BACKEND", "dali", "DATALOADER.NUM_WORKERS", 1])
    whole = shares_of_two(cfg, monkeypatch)
    start = random.SystemRandom().randrange(1, 8)
    resumed = shares_of_two(cfg, monkeypatch, start_iter=start)
    for rank in range(2):
        assert_close(whole[rank], expected[rank])
        assert_same(resumed[rank], whole[rank][start:])


def test_normalised_and_padded_to_shapes(cfg) -> None:
    cfg.merge_from_list(["INPUT.SHAPE_BUCKETS", ((96, 128), (128, 96)), "INPUT.TO_BGR255", False])
    cfg.merge_from_list(["INPUT.PIXEL_MEAN", [0.5, 0.4, 0.3], "INPUT.PIXEL_STD", [0.2, 0.3, 0.4]])
    expected = train_batches(cfg, keep_pixels=False)
    cfg.DATALOADER.BACKEND = "dali"
    found = train_batches(cfg, keep_pixels=False)
    assert_same_samples(found, expected)
    for (images, _, _), (wanted, _, _) in zip(found, expected, strict=True):
        torch.testing.assert_close(images.tensors, wanted.tensors, rtol=0, atol=1.01 / 255 / 0.2)


def test_testing(cfg) -> None:
    (plain,) = make_data_loader(cfg, is_train=False, keep_pixels=True)
    cfg.DATALOADER.BACKEND = "dali"
    (loader,) = make_data_loader(cfg, is_train=False, keep_pixels=True)
    for _ in range(2):
        assert_close(list(loader), list(plain))


def test_grey_progressive_and_rotated_files(cfg, tiny: TinyCoco) -> None:
    """EXIF's rotation is ignored: annotations refer to the pixels as they are stored."""
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, kind in (("image_42", "grey"), ("image_17", "progressive"), ("image_8", "rotated"), ("image_11", "cmyk")):
        path = tiny.root / f"{name}.jpg"
        image, buffer = Image.open(path), BytesIO()
        if kind == "rotated":
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(buffer, "JPEG", exif=exif)
        else:
            image.convert({"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")).save(
                buffer, "JPEG", progressive=kind == "progressive"
            )
        path.write_bytes(buffer.getvalue())
    expected = train_batches(cfg)
    cfg.DATALOADER.BACKEND = "dali"
    assert_close(train_batches(cfg), expected)


def encoded_batch(*files: bytes, size: tuple[int, int], mirrored=(False, False)) -> EncodedBatch:
    count = len(files)
    return EncodedBatch(
        keys=[SampleKey(0, n) for n in range(count)],
        data=torch.from_numpy(np.frombuffer(b"".join(files), dtype=np.uint8).copy()),
        lengths=[len(file) for file in files],
        mirrored=[mirrored] * count,
        shape=(size[0] + 7, size[1] + 5),
        targets=Targets(torch.zeros(count, 0, 4), torch.zeros(count, 0, dtype=torch.int64), None, [size] * count),
    )


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("size", [(48, 64), (96, 128), (31, 40), (131, 174)])
def test_scaling_and_mirroring(size, mirrored) -> None:
    y, x = np.mgrid[:48, :64]
    image = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1).astype(np.uint8)
    image[10:30, 20:30] = (255, 0, 128)  # an edge shows where pixels lie
    batch = encoded_batch(encode(image, ".jpg"), size=size, mirrored=mirrored)
    cpu = torch.device("cpu")
    found = DaliDecoder(cpu, num_threads=1)(batch)
    wanted = OpenCVDecoder(cpu)(batch)
    assert found.image_sizes == wanted.image_sizes == [size]
    assert (found.tensors.int() - wanted.tensors.int()).abs().max() <= LARGEST


def test_an_undecodable_file_spoils_its_own_batch_only() -> None:
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    good = encode(image, ".jpg")
    table = good.index(b"\xff\xc4")  # Huffman codes
    bad = good[: table + 5] + b"\xff" * 16 + good[table + 21 :]
    assert cv2.imdecode(np.frombuffer(bad, np.uint8), cv2.IMREAD_COLOR) is None
    decode = DaliDecoder(torch.device("cpu"), num_threads=1)
    for _ in range(2):
        assert (decode(encoded_batch(good, good, size=(16, 16))).tensors[..., :16, :16] == 90).all()
        with pytest.raises(UndecodableError, match=r"\w"):
            decode(encoded_batch(good, bad, size=(16, 16)))
    assert decode(encoded_batch(good, good, good, size=(16, 16))).tensors.shape == (3, 3, 23, 21)
    assert decode(encoded_batch(good, size=(16, 16))).tensors.shape == (1, 3, 23, 21)


def test_forked_workers_leave_pipelines_alone() -> None:
    """Neither one in use nor one that is garbage, both with threads that a forked process does not have."""
    batch = encoded_batch(encode(np.full((32, 32, 3), 90, dtype=np.uint8), ".jpg"), size=(16, 16))
    alive = DaliDecoder(torch.device("cpu"), num_threads=2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(alive, [batch] * 4))
        for _ in range(5):
            gc.disable()
            dead = DaliDecoder(torch.device("cpu"), num_threads=2)
            dead(batch)
            dead.cycle, dead = dead, None
            child = multiprocessing.get_context("fork").Process(target=gc.collect)
            child.start()
            gc.enable()
            child.join(20)
            exit_code = child.exitcode
            child.kill()
            assert exit_code == 0


def test_a_file_that_nobody_can_decode_is_named_or_passed_over(cfg, tiny: TinyCoco, caplog) -> None:
    path = tiny.root / "image_17.jpg"
    data = path.read_bytes()
    table = data.index(b"\xff\xc4")
    path.write_bytes(data[: table + 5] + b"\xff" * 16 + data[table + 21 :])
    messages = []
    for backend in ("workers", "dali"):
        cfg.DATALOADER.BACKEND = backend
        with pytest.raises(ValueError, match=r"image .*image_17\.jpg cannot be decoded") as error:
            train_batches(cfg)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    cfg.DATALOADER.BROKEN_IMAGES = "skip"
    found = train_batches(cfg)
    cfg.DATALOADER.BACKEND = "workers"
    assert_close(found, train_batches(cfg))
    assert "DaliDecoder cannot decode the batch of samples" in caplog.text
    caplog.clear()


def test_real_photos(external_data) -> None:
    """80 photos of COCO, in the sizes of training and testing: the figures of docs/data_loading.md."""
    from maskrcnn_benchmark.config import cfg as global_cfg

    cfg = global_cfg.clone()
    cfg.DATASETS.DATA_DIR = str(external_data("coco_tiny"))
    cfg.DATASETS.TRAIN, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = ("coco_2017_train",), 4, 20
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN = (320, 800), 0.3
    cfg.DATALOADER.NUM_WORKERS, cfg.MODEL.DEVICE, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 1, "cpu", 81
    cfg.MODEL.MASK_ON = True
    expected = train_batches(cfg)
    cfg.DATALOADER.BACKEND = "dali"
    assert_close(train_batches(cfg), expected)
