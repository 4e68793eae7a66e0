"""The evaluations of a training run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from maskrcnn_benchmark.apps.augmentation import make_box_augmentation
from maskrcnn_benchmark.apps.start import Run
from maskrcnn_benchmark.apps.test import figures_of, run_tests
from maskrcnn_benchmark.data import make_data_loader
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.data.transforms import DeviceNormalize
from maskrcnn_benchmark.engine.background import BackgroundTask
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.tracking import MlperfSink
from maskrcnn_benchmark.tracking.evaluations import EVALUATIONS_FILE, EvaluationLog
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.trainer")

_PROBED = 6  # batches of each data set, by which the time of an evaluation is estimated


class Tester:
    """Evaluates the model of a training run, as often as it is asked, over the same loaders.

    Args:
        run: the started program.
        precision: number format.
        mlperf: is told of each evaluation.

    Attributes:
        results: the last figures, as {"bbox": {"AP": ...}, ...} on rank 0.
        has_run: whether the end of the run has been evaluated.
        task: computes figures while training goes on; see ``__call__``.
        in_background: whether it may.
        seconds: what the longest evaluation took, or is expected to.
    """

    def __init__(self, run: Run, precision: Precision, mlperf: MlperfSink) -> None:
        self.run = run
        self.precision = precision
        self.mlperf = mlperf
        self.data_loaders: Any = None
        self.normalize: DeviceNormalize | None = None
        self.results: Mapping[str, Mapping[str, float]] = {}
        self.has_run = False
        self.log = EvaluationLog(None)
        self.task = BackgroundTask()
        self.in_background = False
        self.seconds = 0.0

    def rewind(self, iteration: int) -> None:
        """Training begins after this iteration; what is known of evaluations up to it is kept."""
        if self.run.output_dir and comm.is_main_process():
            self.log = EvaluationLog(os.path.join(self.run.output_dir, EVALUATIONS_FILE), iteration=iteration)

    def after(
        self, iteration: int, model: nn.Module, last: int, *, on_the_way: bool = False
    ) -> Mapping[str, Mapping[str, float]]:
        """As a call, after an iteration on the way to the last one. What was evaluated before a break is not again."""
        known = comm.broadcast(self.log.find(iteration) if iteration < last else None)
        if known is None:
            self(model, on_the_way=on_the_way, iteration=iteration)
        else:
            logger.info("The figures after iteration %d are known from before the interruption", iteration)
            self.results, self.has_run = known, self.has_run or not on_the_way
        return self.results

    def __call__(
        self, model: nn.Module, *, on_the_way: bool = False, iteration: int | None = None
    ) -> Mapping[str, Mapping[str, float]]:
        """Figures as {"bbox": {"AP": ...}, ...} on rank 0, empty elsewhere.

        Args:
            model: wrapped or not.
            on_the_way: the end of the run still has to be evaluated, and nothing waits for the figures: detection is
                done when this returns, the figures may be computed in ``task`` while training goes on.
            iteration: where they go in the log of evaluations; None for nowhere.
        """
        begin = time.perf_counter()
        self.task.wait()
        deferred = on_the_way and self.in_background
        distributed = comm.get_world_size() > 1
        self._make_loaders()
        self.mlperf.begin_evaluation(len(self.data_loaders[0].dataset))
        results = run_tests(
            self.run.cfg,
            model,
            distributed,
            data_loaders=self.data_loaders,
            precision=self.precision,
            normalize=self.normalize,
            defer=deferred,
        )
        self.has_run = self.has_run or not on_the_way
        self.seconds = max(self.seconds, time.perf_counter() - begin)
        if deferred:
            self.task.start(lambda: [run and run() for run in results], lambda found: self._finish(found, iteration))
        else:
            self._finish(results, iteration)
        return self.results

    def estimate(self, model: nn.Module) -> None:
        """Find out how long an evaluation takes, by some batches of each data set; all processes call it.

        Args:
            model: wrapped or not; left in evaluation mode.
        """
        model = getattr(model, "module", model)
        self._make_loaders()
        options = {"precision": self.precision, "normalize": self.normalize}
        preparation = Preparation(self.precision, self.run.device, self.normalize)
        detect = make_box_augmentation(self.run.cfg, model, preparation.images, keep_pixels=self.normalize is not None)
        for loader in self.data_loaders:
            begin, ends = time.perf_counter(), []
            compute_on_dataset(
                model,
                loader,
                self.run.device,
                _PROBED,
                **options,
                detect=detect,
                receive=lambda batch, ends=ends: ends.append(time.perf_counter()),
            )
            if len(ends) > 1:  # the first one waits for workers to start
                begin = ends.pop(0)
            if ends:
                self.seconds += (ends[-1] - begin) / len(ends) * len(loader)

    def _make_loaders(self) -> None:
        if self.data_loaders is None:
            self.normalize = make_device_normalize(self.run.cfg, self.run.device)
            self.data_loaders = make_data_loader(
                self.run.cfg,
                is_train=False,
                is_distributed=comm.get_world_size() > 1,
                keep_pixels=self.normalize is not None,
            )

    def _finish(self, results: list[Any], iteration: int | None) -> None:
        """Report the figures."""
        self.results = figures_of(results)
        self.mlperf.end_evaluation(self.results)
        if self.results:
            self.run.sink.evaluation(self.results, iteration=iteration)
        if iteration is not None:
            self.log.add(iteration, self.results)
        for task, name in (("bbox", "bbox mAP"), ("segm", "segm mAP")):
            if task in self.results:
                logger.info("%s: %.4f", name, self.results[task]["AP"])

    def close(self) -> None:
        """End the loaders' workers."""
        for loader in self.data_loaders or ():
            loader.close()

    def figures(self) -> dict[str, float]:
        """The last figures under DLLogger's names."""
        names = {"bbox": "BBOX_mAP", "segm": "MASK_mAP"}
        return {name: self.results[task]["AP"] for task, name in names.items() if task in self.results}
