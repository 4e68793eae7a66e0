"""The stages of a training: weights, config and figures of each evaluated model, for the platform to keep."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from pycocotools.coco import COCO
from torch import nn

from maskrcnn_benchmark.checkpoint.files import save_atomically
from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.dataset import VAL
from maskrcnn_benchmark.ymir.figures import (
    BOXES,
    EVALUATE_CONFIG,
    MASKS,
    class_figures,
    count_outcomes,
    draw_curves,
    metric_of,
    platform_figures,
    read_report,
)
from maskrcnn_benchmark.ymir.job import Job
from maskrcnn_benchmark.ymir.monitor import Share
from maskrcnn_benchmark.ymir.network_config import TrainingPlan, make_portable_config
from maskrcnn_benchmark.ymir.onnx_files import check_packages, write_onnx
from maskrcnn_benchmark.ymir.results import ATTACHMENTS, ResultForm, Stage, TrainingResult, check_patterns
from maskrcnn_benchmark.ymir.weights import CONFIG_NAME

logger = logging.getLogger("maskrcnn_benchmark.ymir")

CURVES = "pr_curve.png"
STATE = "stages.yaml"


@dataclass
class StageWriter:
    """Writes stages; on one process.

    Args:
        result: lists them.
        config_text: what is kept beside the weights.
        has_masks: whether the network predicts masks.
        report_folder: where the evaluation leaves its report.
        opset: of ONNX files; None: none are made.
    """

    result: TrainingResult
    config_text: str
    has_masks: bool
    report_folder: str
    opset: int | None

    @classmethod
    def make(cls, job: Job, plan: TrainingPlan, *, anew: bool) -> StageWriter:
        """For a job; ``anew``: nothing is left of a run before it."""
        settings, output = job.settings, job.environment.output
        if settings.flag("export_onnx"):
            check_packages()
        form = ResultForm(
            path=output.training_result_file,
            models_dir=output.models_dir,
            has_stages=job.environment.protocol.has_stages,
            metric=metric_of(plan.has_masks),
            keep=settings.integer("max_keep_checkpoints", 1, least=-1),
            patterns=check_patterns(settings.names("ymir_saved_file_patterns")),
            evaluate_config=EVALUATE_CONFIG,
        )
        return cls(
            result=TrainingResult(form, job.work_path(STATE), anew=anew),
            config_text=make_portable_config(plan.cfg),
            has_masks=plan.has_masks,
            report_folder=os.path.join(plan.output_dir, "inference", VAL),
            opset=settings.integer("opset", 18, least=1) if settings.flag("export_onnx") else None,
        )

    def add(
        self, iteration: int, model: nn.Module, results: Mapping[str, Mapping[str, float]], lists: Any, coco: COCO
    ) -> None:
        """Keep a model with its figures.

        Args:
            iteration: after which it was evaluated.
            model: wrapped or not.
            results: figures, as ``Tester.results``.
            lists: its detections, CocoLists.
            coco: the ground truth.

        Raises:
            OSError: a file cannot be written.
        """
        task = MASKS if self.has_masks else BOXES
        report = read_report(self.report_folder, task)
        figures = {
            **platform_figures(results, has_masks=self.has_masks),
            **count_outcomes(coco, lists.columns[task]),
        }
        name = f"iter_{iteration:07d}"
        folder, weights = self.result.form.folder_of(name), f"model_{iteration:07d}.pth"
        folder.mkdir(parents=True, exist_ok=True)
        state = getattr(model, "module", model).state_dict()
        content = {"model": state, "iteration": iteration, "config": self.config_text}
        save_atomically(content, str(folder / weights))
        _write(folder / CONFIG_NAME, self.config_text.encode())
        stage = Stage(name, (weights, CONFIG_NAME), figures, class_figures(report, has_masks=self.has_masks))
        self.result.add(stage)
        metric = self.result.form.metric
        logger.info("%s: %s %.4f; the best so far is %s", name, metric, figures[metric], self.result.best.stage_name)
        if self.result.best is stage:
            self._draw(report)

    def finish(self, share: Share) -> None:
        """Write the ONNX files that were asked for; a network that ONNX cannot express is left out, with a warning."""
        if self.opset is None:
            return
        for number, stage in enumerate(self.result.stages, start=1):
            weights = next(file for file in stage.files if file.endswith(".pth"))
            path = self.result.form.folder_of(stage.stage_name) / weights
            try:
                for file in write_onnx(path, self.opset):
                    self.result.add_file(stage.stage_name, file)
            except ValueError as error:
                logger.warning("There is no ONNX file of %s: %s", path, error)
            share.finished(number / len(self.result.stages))

    def _draw(self, report: Mapping[str, Any]) -> None:
        encoded, data = cv2.imencode(".png", draw_curves(report))
        path = Path(self.result.form.models_dir, ATTACHMENTS, "figures", CURVES)
        if encoded:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data.tobytes())
            self.result.figures = [CURVES]
            self.result.write()


def _write(path: Path, content: bytes) -> None:
    write_atomically(str(path), lambda file: file.write(content))
