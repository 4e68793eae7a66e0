"""Batches copied and prepared on a stream of their own: what the steps read is what the loader gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Prefetcher, Preparation
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets
from tests.engine.stand_ins import TinyLoader, make_run
from tests.modeling.test_detector import make_target

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
DELAY = 20_000_000  # cycles, some 10 ms: longer than any copy here


def shifted(images):
    """A normalisation that needs no image library."""
    return ImageList(images.tensors.float() - 100, images.image_sizes, images.sizes)


def loader(count=12):
    """Batches of bytes in pinned memory; the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        height = 256 + 32 * (index % 3)
        pixels = torch.randint(0, 256, (4, height, 256, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
        boxes = [make_target([[index, n, index + 20, n + 20]], [n + 1], (256, height)) for n in range(4)]
        images = ImageList(pixels, [(height - n, 256) for n in range(4)])
        yield images.pin_memory(), Targets.from_boxlists(boxes).pin_memory(), (index,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_late_reads_see_their_own_batch(dtype):
    """Each step reads its batch long after the next ones were begun; memory reused too early would show."""
    prepare = Preparation(Precision("cuda", dtype, channels_last=True), CUDA, shifted)
    seen = []
    for images, targets, indices in Prefetcher(loader(), prepare, CUDA):
        torch.cuda._sleep(DELAY)
        seen.append((images.tensors.clone(), images.sizes.clone(), targets.boxes.clone(), indices))
        del images, targets  # the memory may be given to another batch
    plain = Preparation(Precision("cpu", dtype, channels_last=True), torch.device("cpu"), shifted)
    expected = [plain(batch) for batch in loader()]
    assert len(seen) == len(expected)
    for (images, sizes, boxes, indices), (wanted, targets, wanted_indices) in zip(seen, expected, strict=True):
        assert indices == wanted_indices
        assert torch.equal(images.cpu(), wanted.tensors)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(sizes.cpu(), wanted.sizes)
        assert torch.equal(boxes.cpu(), targets.boxes)


def test_the_host_never_waits():
    prepare = Preparation(Precision("cuda", torch.float16, channels_last=True), CUDA, shifted)
    batches = list(loader())
    list(Prefetcher(batches, prepare, CUDA))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in Prefetcher(batches, prepare, CUDA):
            torch.cuda._sleep(DELAY)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_copy_runs_while_a_step_computes():
    """The second batch is ready on the device before the first step, which sleeps, has ended."""
    prepared = []

    def prepare(batch):
        done = Preparation(Precision("cuda"), CUDA, shifted)(batch)
        prepared.append(torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True)))
        return done

    batches = list(loader(2))
    list(Prefetcher(batches, prepare, CUDA))  # memory is there now
    torch.cuda.synchronize()
    prepared.clear()
    steps = []
    for _ in Prefetcher(batches, prepare, CUDA):
        torch.cuda._sleep(10 * DELAY)
        steps.append(torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True)))
    torch.cuda.synchronize()
    assert prepared[1].elapsed_time(steps[0]) > 0


def test_a_run_equals_one_without(tmp_path):
    weights = []
    for prefetch in (False, True):
        model, optimizer, scheduler, _ = make_run(tmp_path)
        do_train(
            model.to(CUDA), TinyLoader(9), optimizer, scheduler, None, CUDA, 0, {"iteration": 0}, prefetch=prefetch
        )
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_the_gpu_normalises_as_the_workers_do():
    pytest.importorskip("cv2")
    from maskrcnn_benchmark.data.transforms import DeviceNormalize, Normalize

    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    for settings in (
        ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), True),
        ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), True),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    ):
        normalize = Normalize(*settings[:2], to_bgr255=settings[2])
        found = DeviceNormalize(normalize, CUDA)(ImageList(pixels, [(64, 96)]).to(CUDA)).tensors
        assert torch.equal(found[0].cpu().view(torch.int32), normalize(image).view(torch.int32))
