"""One contender of benchmarks/cpu_network.py in a process of its own: builds its network, runs a step when told to.

A run has ``step()``, ``watch(recorder)``, ``unwatch()`` and ``region_counts``, as those of `apps.benchmark_run`.
"""

from __future__ import annotations

import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from benchmarks import _peers
from maskrcnn_benchmark.apps import predict as predict_module
from maskrcnn_benchmark.apps.benchmark_build import Workload, build_training_run
from maskrcnn_benchmark.apps.benchmark_network import settle_activations, sharpen_classes, watch_network
from maskrcnn_benchmark.apps.categories import default_categories
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.classes import class_count
from maskrcnn_benchmark.data.synthetic_batches import draw_pixels
from maskrcnn_benchmark.data.transforms.build import ImagePreparer
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.stages import FlopClock, StageRecorder, mean_stages
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.utils.allocator import keep_pages, reserve_huge_pages

ROOT = Path(__file__).resolve().parent.parent
OURS = "ours"
STEADY_RATE = 1e-8  # of learning: the weights, and with them the work, stay as they are
_LENGTH = 10_000  # of a run, more than there will ever be
_MATRIX = 2048


@dataclass(frozen=True)
class Job:
    """What every contender of a benchmark does.

    Args:
        task: "train" or "inference".
        image_size: (height, width) of the picture; batches hold one.
        positives: regions that the mask head trains on.
        config_file: of ours; the peers are told to do the same work.
        options: config keys and values in turn, on top of it.
    """

    task: str
    image_size: tuple[int, int]
    positives: int
    config_file: str
    options: tuple[str, ...] = ()

    def make_cfg(self, *more: str) -> CfgNode:
        """The config of this job; torchvision's network has the stride of a block in its 3x3 convolution."""
        cfg = defaults.clone()
        cfg.merge_from_file(str(ROOT / self.config_file))
        cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DTYPE", "float32", "MODEL.RESNETS.STRIDE_IN_1X1", "False"])
        cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", min(self.image_size), "INPUT.MAX_SIZE_TEST", max(self.image_size)])
        cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", "1", "TEST.IMS_PER_BATCH", "1", "SOLVER.BASE_LR", STEADY_RATE])
        cfg.merge_from_list([*self.options, *more])
        cfg.freeze()
        return cfg

    def draw_picture(self) -> np.ndarray:
        """A picture, uint8 [H, W, 3] in BGR."""
        return draw_pixels(np.random.default_rng(0), self.image_size)


class ProcessorClock:
    """Milliseconds of processor time of the whole process, for `StageRecorder`."""

    def mark(self) -> float:
        """The present time."""
        return time.process_time()

    def between(self, begin: float, end: float) -> float:
        """Milliseconds."""
        return (end - begin) * 1e3


class PictureRun:
    """Detects on one picture a step, from its pixels to masks of its size.

    Args:
        detect: the picture to the number of detections.
        picture: uint8 [H, W, 3] in BGR.
        watch_stages: puts the hooks of a recorder on the network.

    Attributes:
        region_counts: detections of each step.
    """

    def __init__(
        self, detect: Callable[[np.ndarray], int], picture: np.ndarray, watch_stages: Callable[[StageRecorder], None]
    ) -> None:
        self.detect = detect
        self.picture = picture
        self.watch_stages = watch_stages
        self.recorder: StageRecorder | None = None
        self.region_counts: list[int] = []

    def step(self) -> None:
        """Detect once."""
        if self.recorder is not None:
            self.recorder.begin_step()
        self.region_counts.append(self.detect(self.picture))
        if self.recorder is not None:
            self.recorder.end_step()

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages of the steps from now on."""
        self.recorder = recorder
        self.watch_stages(recorder)

    def unwatch(self) -> None:
        """Take the hooks off."""
        if self.recorder is not None:
            self.recorder.detach()
        self.recorder = None


def build_ours(job: Job) -> Any:
    """Our run of a job, set up as the programs in tools/ do it."""
    keep_pages()
    cfg = job.make_cfg()
    if job.task == "train":
        reserve_huge_pages()
        workload = Workload(synthetic=True, image_size=job.image_size, positives=job.positives, count_flops=False)
        return build_training_run(cfg, torch.device("cpu"), workload, length=_LENGTH)
    seed_step(cfg.SEED, 0, 0)
    device = torch.device("cpu")
    precision = Precision.from_config(cfg, device)
    model = precision.place_model(build_detection_model(cfg), device)
    settle_activations(model)
    predictor = predict_module.Predictor(
        model,
        prepare=ImagePreparer.from_config(cfg),
        categories=default_categories(class_count(cfg), cfg.DATASETS.CLASSES),
        size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY,
        confidence_threshold=0.0,
        precision=precision,
    )
    picture = job.draw_picture()
    sharpen_classes(model, lambda: predictor(picture))

    def watch(recorder: StageRecorder) -> None:
        recorder.watch_call(predictor, "prepare", "data")
        watch_network(recorder, model)
        recorder.watch_call(predict_module, "paste_masks", "paste")

    return PictureRun(lambda pixels: len(predictor(pixels)), picture, watch)


def count_operations(job: Job) -> dict[str, float]:
    """GFLOP of our network's convolutions, as direct ones, and matrix products by stage, and of all as "step"."""
    # In ordinary convolutions: the counter does not know every way that ours takes.
    run = build_ours(replace(job, options=(*job.options, "NHWC", "False", "MODEL.WINOGRAD", "False")))
    counter = FlopCounterMode(display=False)
    recorder = StageRecorder(FlopClock(counter))
    run.watch(recorder)
    try:
        with counter:
            run.step()
    finally:
        run.unwatch()
    (stages,) = recorder.read()
    counted = {name: value / 1e9 for name, value in stages.items() if value}
    return counted | {"step": counter.get_total_flops() / 1e9}


def build_torchvision(job: Job) -> Any:
    """Torchvision's run of a job."""
    _peers.load_torchvision()
    from benchmarks import _torchvision

    if job.task == "train":
        return _torchvision.build_torchvision_run(
            job.make_cfg("NHWC", "False"),
            torch.device("cpu"),
            image_size=job.image_size,
            positives=job.positives,
            length=_LENGTH,
        )
    picture = job.draw_picture()
    detector = _torchvision.TorchvisionPictures(job.make_cfg(), picture)
    return PictureRun(detector.detect, picture, detector.watch)


def build_detectron2(job: Job) -> Any:
    """detectron2's run of a job."""
    _peers.load_detectron2()
    from benchmarks import _detectron2

    if job.task == "train":
        return _detectron2.build_detectron2_run(
            job.make_cfg("NHWC", "False"), image_size=job.image_size, positives=job.positives, length=_LENGTH
        )
    picture = job.draw_picture()
    detector = _detectron2.Detectron2Pictures(job.make_cfg(), picture)
    return PictureRun(detector.detect, picture, detector.watch)


BUILDERS: dict[str, Callable[[Job], Any]] = {
    OURS: build_ours,
    "torchvision": build_torchvision,
    "detectron2": build_detectron2,
}


def serve(contender: str, job: Job, pipe: Connection) -> None:
    """Build the contender's run, then obey the pipe: (command, number of threads) in, (result, error) out, None ends.

    Commands: step -> (CPU seconds, wall seconds); stages -> CPU milliseconds by stage; regions -> positives or
    detections of the last step; memory -> peak of the process in MiB; matmul -> GFLOP/s of a large matrix product;
    operations -> `count_operations`.
    """
    try:
        run = BUILDERS[contender](job)
        torch.set_num_threads(1)
        run.step()  # the warm-up, which also shows whether it works
    except Exception:  # whatever a peer raises: the benchmark goes on without it
        pipe.send((None, traceback.format_exc(limit=-3)))
        return
    pipe.send((None, ""))
    commands: dict[str, Callable[[], Any]] = {
        "operations": lambda: count_operations(job),
        "step": lambda: _timed(run.step),
        "stages": lambda: _stages(run),
        "regions": lambda: int(run.region_counts[-1]),
        "memory": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "matmul": _matrix_rate,
    }
    while (order := pipe.recv()) is not None:
        command, threads = order
        torch.set_num_threads(threads)
        try:
            pipe.send((commands[command](), ""))
        except Exception:
            pipe.send((None, traceback.format_exc(limit=-3)))


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    processor, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - processor, time.perf_counter() - wall


def _stages(run: Any) -> dict[str, float]:
    recorder = StageRecorder(ProcessorClock())
    run.watch(recorder)
    try:
        run.step()
    finally:
        run.unwatch()
    return mean_stages(recorder.read())


def _matrix_rate() -> float:
    a = torch.rand(_MATRIX, _MATRIX)
    alone = torch.get_num_threads() == 1  # then other work on the machine does not count
    seconds = min(_timed(lambda: a @ a)[0 if alone else 1] for _ in range(5))
    return 2 * _MATRIX**3 / seconds / 1e9
