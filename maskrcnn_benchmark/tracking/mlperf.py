"""A training run as the events of MLPerf's log, which MLCommons' compliance checker reads.

Format and names: MLCommons' training policies and the checker's rules for maskrcnn (mlperf-logging, training 3.1.0).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.tracking.sink import MetricSink, Step
from maskrcnn_benchmark.utils import comm

DIVISIONS = ("closed", "open")
STATUSES = ("onprem", "cloud", "preview", "research")
_NAMES = {"bbox": "BBOX", "segm": "SEGM"}  # ours -> MLPerf's


class MlperfLog:
    """Writes events as lines ``:::MLLOG {json}``.

    Args:
        path: the file, written anew; None writes nothing.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self.file = None
        try:
            if path is not None:
                self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        except OSError as error:
            raise OSError(f"MLPERF.LOG {path!r} cannot be written ({error.strerror}); choose another file") from error

    def event(self, key: str, value: Any = None, *, kind: str = "POINT_IN_TIME", **metadata: Any) -> None:
        """Write one event with the present time; ``kind`` as the format names it."""
        if self.file is None:
            return
        now = int(time.time() * 1000)
        content = {"namespace": "", "time_ms": now, "event_type": kind, "key": key, "value": value}
        self.file.write(f":::MLLOG {json.dumps({**content, 'metadata': metadata})}\n")
        self.file.flush()

    def begin(self, interval: str, **metadata: Any) -> None:
        """Write that an interval begins."""
        self.event(f"{interval}_start", kind="INTERVAL_START", **metadata)

    def end(self, interval: str, **metadata: Any) -> None:
        """Write that an interval ends."""
        self.event(f"{interval}_stop", kind="INTERVAL_END", **metadata)

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


class MlperfSink(MetricSink):
    """Tells MLPerf's log what a training run does: a receiver of figures that also follows epochs and evaluations.

    An epoch is a block. The run counts as a success when an evaluation has reached the aim.

    Args:
        path: the log; None makes everything here do nothing.
        submission: what is submitted by whom: benchmark, division, status, org, platform.
        settings: the run's settings under MLPerf's names.
        aim: box and mask AP to reach, as {"bbox": 0.377, "segm": 0.339}.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        submission: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        aim: Mapping[str, float] | None = None,
    ) -> None:
        self.log_file = MlperfLog(path)
        self.is_on = path is not None
        self.settings = dict(settings or {})
        self.aim = dict(aim or {})
        self.epoch = 0
        self.in_epoch = self.has_started = self.has_evaluated = self.is_success = False
        for name, value in (submission or {}).items():
            self.log_file.event(f"submission_{name}", value)
        self.log_file.event("cache_clear", True)
        self.log_file.begin("init")

    @classmethod
    def from_config(cls, cfg: CfgNode, output_dir: str) -> MlperfSink:
        """Read MLPERF, and what of SOLVER, INPUT and MODEL.RPN the log has to name; off without MLPERF.LOG.

        Args:
            cfg: the whole config.
            output_dir: folder that a relative MLPERF.LOG lies in.

        Raises:
            ValueError: MLPERF.DIVISION or MLPERF.STATUS is none of MLPerf's.
        """
        mlperf = cfg.MLPERF
        if not mlperf.LOG or not comm.is_main_process():
            return cls()
        for key, known in (("DIVISION", DIVISIONS), ("STATUS", STATUSES)):
            if mlperf[key] not in known:
                raise ValueError(f"MLPERF.{key} must be one of {', '.join(known)}, got {mlperf[key]!r}")
        submission = {
            "benchmark": "maskrcnn",
            "division": mlperf.DIVISION,
            "status": mlperf.STATUS,
            "org": mlperf.ORG,
            "platform": mlperf.PLATFORM or _describe_platform(cfg.MODEL.DEVICE),
        }
        aim = {"bbox": cfg.MIN_BBOX_MAP, "segm": cfg.MIN_MASK_MAP}
        path = os.path.join(output_dir, mlperf.LOG)
        return cls(path, submission=submission, settings=make_settings(cfg), aim=aim)

    def start_run(self) -> None:
        """The network is built, no training image has been touched: the clock starts."""
        for name, value in self.settings.items():
            self.log_file.event(name, value)
        self.log_file.end("init")
        self.log_file.begin("run")
        self.has_started = True

    def follow(
        self,
        callback: Callable[[int], bool] | None,
        *,
        first: int,
        last: int,
        iterations_per_epoch: int,
        num_images: int,
    ) -> Callable[[int], bool] | None:
        """Wrap an end-of-iteration callback of the training loop so that epochs are logged around it.

        Args:
            callback: what happens after an iteration, such as an evaluation after each epoch; None for nothing.
            first: iterations done before.
            last: the last iteration.
            iterations_per_epoch: of the loader.
            num_images: of the training set.
        """
        if not self.is_on:
            return callback
        self.log_file.event("train_samples", num_images)
        self._begin_epoch(first // iterations_per_epoch + 1)

        def after_iteration(iteration: int) -> bool:
            if iteration == first:  # what an interruption left to do
                return callback(iteration) if callback is not None else False
            ends = iteration % iterations_per_epoch == 0 or iteration == last
            if ends:
                self._end_epoch()
            stops = callback(iteration) if callback is not None else False
            if ends and not stops and iteration != last:
                self._begin_epoch(iteration // iterations_per_epoch + 1)
            return stops

        return after_iteration

    def begin_evaluation(self, num_images: int) -> None:
        """An evaluation over a test set of so many images begins."""
        if not self.has_evaluated:
            self.log_file.event("eval_samples", num_images)
        self.has_evaluated = True
        self.log_file.begin("eval", epoch_num=self.epoch)

    def end_evaluation(self, results: Mapping[str, Mapping[str, float]]) -> None:
        """It has ended, with figures as {"bbox": {"AP": 0.4}, "segm": {"AP": 0.3}}."""
        found = {task: results[task]["AP"] for task in _NAMES if task in results}
        self.is_success |= bool(found) and all(ap >= self.aim.get(task, 0.0) for task, ap in found.items())
        named = {_NAMES[task]: ap for task, ap in found.items()}
        self.log_file.event("eval_accuracy", named, epoch_num=self.epoch)
        self.log_file.end("eval", epoch_num=self.epoch)

    def metadata(self, metric: str, metadata: Mapping[str, Any]) -> None:
        """MLPerf's events have no units."""

    def log(self, step: Step, data: Mapping[str, Any], *, text: Mapping[str, str] | None = None) -> None:
        """Write the numbers of an iteration as one event; settings and totals have events of their own."""
        if self.is_on and step and not isinstance(step, str):
            numbers = {name: value for name, value in data.items() if isinstance(value, int | float)}
            self.log_file.event("tracked_stats", numbers, step=step[0])

    def rewind(self, iteration: int) -> None:
        """The log was written anew."""

    def close(self) -> None:
        """The run is over."""
        self._end_epoch()
        if self.has_started:
            self.log_file.end("run", status="success" if self.is_success else "aborted")
        self.log_file.close()

    def _begin_epoch(self, number: int) -> None:
        self.epoch, self.in_epoch = number, True
        self.log_file.begin("block", first_epoch_num=number, epoch_count=1)
        self.log_file.begin("epoch", epoch_num=number)

    def _end_epoch(self) -> None:
        if self.in_epoch:
            self.log_file.end("epoch", epoch_num=self.epoch)
            self.log_file.end("block", first_epoch_num=self.epoch)
        self.in_epoch = False


def make_settings(cfg: CfgNode) -> dict[str, Any]:
    """The settings of a run under MLPerf's names; the global batch is that of an update, micro-batches included."""
    solver = cfg.SOLVER
    accumulation = solver.ACCUMULATE_STEPS if solver.ACCUMULATE_GRAD else 1
    return {
        "seed": cfg.SEED,
        "global_batch_size": solver.IMS_PER_BATCH * accumulation,
        "gradient_accumulation_steps": accumulation,
        "num_image_candidates": cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN,
        "opt_name": "sgd_with_momentum",
        "opt_base_learning_rate": solver.BASE_LR,
        "opt_learning_rate_warmup_steps": solver.WARMUP_ITERS,
        "opt_learning_rate_warmup_factor": solver.WARMUP_FACTOR,
        "opt_learning_rate_decay_factor": solver.GAMMA,
        "opt_learning_rate_decay_steps": list(solver.STEPS),
        "opt_weight_decay": solver.WEIGHT_DECAY,
        "min_image_size": _smallest(cfg.INPUT.MIN_SIZE_TRAIN),
        "max_image_size": cfg.INPUT.MAX_SIZE_TRAIN,
    }


def _smallest(sizes: int | tuple[int, ...]) -> int:
    return sizes if isinstance(sizes, int) else min(sizes)


def _describe_platform(device: str) -> str:
    name = torch.cuda.get_device_name() if device.startswith("cuda") and torch.cuda.is_available() else "CPU"
    return f"{comm.get_world_size()}x {name}"
