"""Batches on their way to the network: prepared on the device as the workers would, ahead of time, in order."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.collate_batch import BatchCollator, pack_targets
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.transforms import DeviceNormalize, Normalize
from maskrcnn_benchmark.engine import prefetch as module
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Prefetcher, Preparation
from maskrcnn_benchmark.structures.image_list import ImageList, padded_size, to_image_list
from tests.apps.tiny_run import tiny_run
from tests.data.tiny_coco import write_tiny_coco
from tests.modeling.host_reads import HostReads

__all__ = ["tiny_run"]  # a fixture

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cfg = global_cfg.clone()
    cfg.DATASETS.CUSTOM = write_tiny_coco(tmp_path / "tiny").custom("tiny")
    cfg.merge_from_list(["DATASETS.TRAIN", "tiny", "DATASETS.TEST", "tiny", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 4])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (32, 48, 64), "INPUT.MAX_SIZE_TRAIN", 96, "INPUT.MIN_SIZE_TEST", 48])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATALOADER.SIZE_DIVISIBILITY", 32, "MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 6, "TEST.IMS_PER_BATCH", 2])
    return cfg


@pytest.mark.parametrize(
    ("bgr", "mean", "std"),
    [
        (True, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0)),
        (True, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
        (False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
@pytest.mark.parametrize("is_train", [True, False])
def test_device_and_workers_normalise_to_the_same_bits(cfg, bgr, mean, std, is_train):
    cfg.merge_from_list(["INPUT.TO_BGR255", bgr, "INPUT.PIXEL_MEAN", mean, "INPUT.PIXEL_STD", std])
    cfg.merge_from_list(["DATALOADER.PREFETCH", "always"])

    def batches(keep_pixels):
        made = make_data_loader(cfg, is_train, keep_pixels=keep_pixels)
        return list(made[0])

    prepare = Preparation(Precision("cpu"), CPU, make_device_normalize(cfg, CPU))
    for expected, pixels in zip(batches(False), batches(True), strict=True):
        assert pixels[0].tensors.dtype == torch.uint8
        assert pixels[0].tensors.is_contiguous(memory_format=torch.channels_last)
        images, targets, indices = prepare(pixels)
        assert images.tensors.is_contiguous()
        assert torch.equal(bits(images.tensors), bits(expected[0].tensors))
        assert images.image_sizes == expected[0].image_sizes
        assert torch.equal(images.sizes, expected[0].sizes)
        assert torch.equal(targets.boxes, expected[1].boxes)
        assert indices == expected[2]


def test_what_lies_beside_an_image_is_not_looked_at():
    pixels = torch.full((2, 3, 4, 6), 255, dtype=torch.uint8)
    normalize = DeviceNormalize(Normalize((1, 2, 3), (1, 1, 1)), CPU)
    images = normalize(ImageList(pixels, [(4, 5), (2, 6)])).tensors
    assert (images[0, :, :, 5] == 0).all()
    assert (images[1, :, 2:] == 0).all()
    assert (images[0, :, :, :5] == torch.tensor([254.0, 253, 252])[:, None, None]).all()
    ready = ImageList(torch.rand(1, 3, 4, 6), [(4, 6)])
    assert normalize(ready) is ready


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_type_and_layout_are_those_of_the_network(dtype, channels_last):
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((40, 60), (50, 30))]
    targets = [ImageTargets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), image.shape[:2]) for image in pixels]
    batch = BatchCollator(32)(list(zip(pixels, targets, (0, 1), strict=True)))
    normalize = Normalize((102.9801, 115.9465, 122.7717), (57.0, 57.0, 58.0))
    prepare = Preparation(Precision("cpu", dtype, channels_last), CPU, DeviceNormalize(normalize, CPU))
    prepare(batch)
    with HostReads() as reads:
        images, _, _ = prepare(batch)
    assert reads.found == []
    expected = to_image_list([normalize(image) for image in pixels], 32).tensors
    assert torch.equal(images.tensors, expected.to(dtype))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.tensors.is_contiguous(memory_format=layout)


def test_who_normalises(cfg):
    for choice in ("auto", "always"):
        cfg.DATALOADER.PREFETCH = choice
        assert isinstance(make_device_normalize(cfg, CPU), DeviceNormalize)
    cfg.DATALOADER.PREFETCH = "never"
    assert make_device_normalize(cfg, CUDA) is None
    cfg.DATALOADER.PREFETCH = "perhaps"
    with pytest.raises(ValueError, match="one of auto, always, never, got 'perhaps'"):
        make_device_normalize(cfg, CPU)


def test_a_run_that_prepares_on_the_device_equals_one_whose_workers_do(tiny_run):
    states = []
    for choice in ("never", "always"):
        tiny_run.output = tiny_run.folder / choice
        tiny_run.train(keys={"DATALOADER.PREFETCH": choice})
        state = torch.load(tiny_run.output / "model_final.pth", weights_only=True)
        states.append(state["model"] | {"box": (tiny_run.output / "inference" / "tiny" / "bbox.json").read_text()})
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(60, 90)], (64, 128)),
        ([(60, 90), (64, 128)], (64, 128)),
        ([(90, 60)], (128, 64)),
        ([(60, 60)], (64, 128)),  # both hold it: the first of equal areas
        ([(60, 90), (90, 60)], (128, 128)),
        ([(60, 129)], (64, 160)),  # none holds it: as without shapes
        ([(200, 200)], (224, 224)),
    ],
)
def test_batches_are_padded_to_the_smallest_shape_that_holds_them(sizes, expected):
    shapes = ((128, 128), (64, 128), (128, 64))
    assert padded_size(sizes, 32, shapes) == expected
    images = [np.full((*size, 3), 7, dtype=np.uint8) for size in sizes]
    targets = [ImageTargets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), size) for size in sizes]
    normalize = Normalize((1, 2, 3), (1, 1, 1))
    for samples, option in ((images, None), (images, normalize), ([normalize(image) for image in images], None)):
        collate = BatchCollator(32, normalize=option, shapes=shapes)
        batch, packed, _ = collate(list(zip(samples, targets, range(len(sizes)), strict=True)))
        assert batch.tensors.shape == (len(sizes), 3, *expected)
        assert batch.image_sizes == sizes
        assert torch.equal(packed.boxes, pack_targets(targets).boxes)
        filled = [(plane != 0).sum().item() for plane in batch.tensors[:, 0]]
        assert filled == [height * width for height, width in sizes]


class Stream:
    """Notes what it is asked to do."""

    def __init__(self, name, log):
        self.name, self.log, self.events = name, log, 0

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for all of {other.name}")

    def record_event(self):
        self.events += 1
        return f"{self.name} {self.events}"

    def wait_event(self, event):
        self.log.append(f"{self.name} waits for {event}")


@pytest.fixture
def log(monkeypatch):
    """The order of events on two streams that are only names."""
    log = []
    main = Stream("steps", log)
    monkeypatch.setattr(module.torch.cuda, "Stream", lambda device: Stream("side", log))
    monkeypatch.setattr(module.torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(module.torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return log


def test_a_batch_is_begun_before_the_one_before_it_is_handed_out(log):
    prefetcher = Prefetcher([1, 2, 3], lambda batch: log.append(f"prepare {batch}") or batch, CUDA)
    for batch in prefetcher:
        log.append(f"step {batch}")
    assert log == [
        *("side waits for all of steps", "prepare 1"),
        *("side waits for all of steps", "prepare 2"),
        *("steps waits for side 1", "step 1"),
        *("side waits for all of steps", "prepare 3"),
        *("steps waits for side 2", "step 2"),
        *("steps waits for side 3", "step 3"),
    ]


class Broken:
    """A loader whose third batch fails, and which must not be asked again."""

    def __iter__(self):
        yield from (1, 2)
        raise OSError("image 3 is damaged")


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_error_of_the_loader_comes_in_its_own_iteration(log, device):
    done = []
    with pytest.raises(OSError, match="image 3 is damaged"):
        done.extend(Prefetcher(Broken(), lambda batch: batch, device))
    assert done == [1, 2]


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_batch_comes_once_in_order(log, device, count):
    prefetcher = Prefetcher(range(count), lambda batch: batch * 10, device)
    for _ in range(2):
        assert list(prefetcher) == [10 * index for index in range(count)]


def test_on_a_cpu_nothing_is_fetched_ahead():
    fetched = []
    loader = (fetched.append(index) or index for index in range(5))
    for batch in Prefetcher(loader, lambda batch: batch, CPU):
        assert fetched == list(range(batch + 1))
    assert Prefetcher([], lambda batch: batch, CUDA, overlap=False).side is None
