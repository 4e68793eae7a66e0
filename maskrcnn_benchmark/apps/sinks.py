"""Where the figures of a run go, chosen by TRACKING.BACKENDS, and what they are given beside figures."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.apps.manifest import MANIFEST_FILE
from maskrcnn_benchmark.apps.manifest_facts import make_config_facts
from maskrcnn_benchmark.apps.options.report import REPORT_FILE
from maskrcnn_benchmark.apps.prediction_sheet import write_prediction_sheets
from maskrcnn_benchmark.apps.report.run_folder import CONFIG_FILE, EVALUATION_FILE, METRICS_FILE
from maskrcnn_benchmark.checkpoint.history import FINAL
from maskrcnn_benchmark.tracking import DLLoggerSink, JsonLinesSink, MetricSink, SinkGroup, TensorBoardSink
from maskrcnn_benchmark.tracking.backends import TRACKERS, make_tracker
from maskrcnn_benchmark.tracking.secrets import without_secrets
from maskrcnn_benchmark.tracking.tracker import TrackedRun
from maskrcnn_benchmark.tracking.tracker_sink import TrackerSink
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark")


def make_sinks(cfg: CfgNode, args: argparse.Namespace, output_dir: str) -> SinkGroup:
    """The receivers of TRACKING.BACKENDS on the process that writes, none on the others.

    Args:
        cfg: the whole config.
        args: reads json_summary, the file of DLLogger's stream.
        output_dir: "" for none; then there are no files but that one.

    Raises:
        OSError: a file cannot be written.
        ImportError: the package of a tracker is not installed.
    """
    if not comm.is_main_process():
        return SinkGroup()
    wanted = cfg.TRACKING.BACKENDS
    sinks: list[MetricSink] = []
    if "dllogger" in wanted:
        sinks.append(_make_dllogger(args.json_summary))
    if "jsonl" in wanted and output_dir:
        sinks.append(JsonLinesSink(os.path.join(output_dir, METRICS_FILE)))
    if "tensorboard" in wanted and output_dir:
        try:
            sinks.append(TensorBoardSink(os.path.join(output_dir, "tensorboard")))
        except ImportError:
            logger.info("No TensorBoard events: the package tensorboard is not installed")
    run = make_tracked_run(cfg, output_dir)
    sinks += [TrackerSink(make_tracker(name), run) for name in TRACKERS if name in wanted]
    return SinkGroup(sinks)


def make_tracked_run(cfg: CfgNode, output_dir: str) -> TrackedRun:
    """What trackers are told of the run."""
    tracking = cfg.TRACKING
    return TrackedRun(
        project=tracking.PROJECT,
        experiment=tracking.EXPERIMENT,
        name=tracking.NAME or Path(output_dir or ".").resolve().name,
        tags=tracking.TAGS,
        settings=without_secrets(make_config_facts(cfg)["values"]),
        folder=output_dir,
        timeout=tracking.TIMEOUT,
    )


def make_last_files(cfg: CfgNode, sink: MetricSink, output_dir: str) -> None:
    """Hand pictures and files of a run that has ended to the trackers; nothing about it ends the program."""
    if not (output_dir and comm.is_main_process() and set(TRACKERS) & set(cfg.TRACKING.BACKENDS)):
        return
    folder = Path(output_dir)
    try:
        for name, path in write_prediction_sheets(folder):
            sink.figure(f"predictions/{name}", str(path))
    except Exception as error:
        logger.warning("There is no sheet of predictions (%s)", describe(error))
        logger.debug("traceback", exc_info=True)
    files = {"config": CONFIG_FILE, "manifest": MANIFEST_FILE, "report": REPORT_FILE}
    if cfg.TRACKING.UPLOAD_MODEL:
        files["model"] = f"{FINAL}.pth"
    for data_set in cfg.DATASETS.TEST:
        files[f"evaluation/{data_set}"] = f"inference/{data_set}/{EVALUATION_FILE}"
    for name, file in files.items():
        if (folder / file).exists():
            sink.artifact(name, str(folder / file))


def _make_dllogger(path: str) -> DLLoggerSink:
    try:
        # On a terminal the progress bar takes the place of DLLogger's lines.
        return DLLoggerSink(path, None if sys.stdout.isatty() else sys.stdout)
    except OSError as error:
        raise OSError(f"--json-summary {path!r} cannot be written ({error.strerror})") from error
