"""One job of tools/train_hydra.py: a training run as tools/train_net.py does it, or a debug run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.apps.hydra_settings import debug_batches, make_overrides
from maskrcnn_benchmark.apps.manifest import MANIFEST_FILE, RunRecord
from maskrcnn_benchmark.apps.start import start_run
from maskrcnn_benchmark.apps.test import figures_of, run_tests
from maskrcnn_benchmark.apps.tester import Tester
from maskrcnn_benchmark.apps.train import build_and_train, make_parser, run_training
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.signals import Interrupted, StopSignals
from maskrcnn_benchmark.evaluation.coco import CocoResults
from maskrcnn_benchmark.tracking import MlperfSink
from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark.sweeps")

INTERRUPTED_SUFFIX = "__interrupted__"
_TRAIN_NET = Path(__file__).resolve().parents[2] / "tools" / "train_net.py"
Figures = Mapping[str, Mapping[str, float]]


def run_job(settings: Any, cfg: CfgNode) -> float | tuple[float, ...] | None:
    """Train, test, and say how good the result is.

    The folder of a run that was interrupted gets the name ``<folder>__interrupted__``; a run that goes on there and
    ends gives it its name back.

    Args:
        settings: what Hydra composed from conf/, an omegaconf.DictConfig.
        cfg: the config tree with its defaults; stays as it is.

    Returns:
        The figure that ``objective`` names, or several; None where nothing was tested.

    Raises:
        ValueError, KeyError: a setting is wrong, with the key as it was typed.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(settings, resolve=True)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "tools/train_hydra.py starts its processes itself: run it without torchrun, with trainer.devices=N"
        )
    objective = parse_objective(plain["objective"])
    args = make_arguments(plain, cfg, folder)
    batches, devices = debug_batches(plain), plain["trainer"]["devices"]
    if type(devices) is not int or devices < 1:
        raise ValueError(f"trainer.devices={devices}: give the number of processes")
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's own, which no loader's worker can have
        multiprocessing.set_start_method(None, force=True)  # the platform's own
    interrupted = False
    try:
        with _torch_settings(), _hydra_log(), StopSignals() as stop, stop.exits():
            if batches:
                figures = debug_run(args, cfg, stop, batches=batches)
            elif devices > 1:
                figures = run_processes(args, devices, folder)
            else:
                figures = run_training(args, cfg, stop)
    except (KeyboardInterrupt, SystemExit):
        interrupted = True
        raise
    except Exception as error:
        logger.error("The job in %s failed: %s", folder, describe(error))
        raise
    finally:
        if not batches:
            settle_name(folder, interrupted=interrupted)
    return select_objective(figures, objective)


def make_arguments(settings: Mapping[str, Any], cfg: CfgNode, folder: Path) -> argparse.Namespace:
    """The options of tools/train_net.py for these settings; DLLogger's stream goes into the folder too."""
    batches = debug_batches(settings)
    words = ["--config-file", str(settings["config_file"])] if settings["config_file"] else []
    words += ["--json-summary", os.devnull if batches else str(folder / "dllogger.out")]
    words += ["--skip-test"] if settings["skip_test"] else []
    return make_parser().parse_args([*words, *make_overrides(settings, cfg, folder=str(folder))])


def debug_run(args: argparse.Namespace, cfg: CfgNode, stop: StopSignals, *, batches: int) -> Figures:
    """So many batches of training, validation and test in this process, all through the code of a real run.

    Both evaluations take DATASETS.TEST: the first as an evaluation on the way, the second as the one at the end.

    Returns:
        The figures of the test, which say nothing: most images were not looked at.
    """
    with start_run(args, cfg, training=True, testing=True) as run:
        precision = Precision.from_config(run.cfg, run.device, use_amp=run.use_amp)
        mlperf = MlperfSink.from_config(run.cfg, run.output_dir)
        tester = Tester(run, precision, mlperf)
        with RunRecord(run.output_dir) as record, contextlib.closing(tester):
            model, summary = build_and_train(run.cfg, run, precision, tester, mlperf, record, stop)
        logger.info("Debug run: %d batch(es) of training", summary.iterations)
        figures: Figures = {}
        for name in ("validation", "test"):
            normalize = make_device_normalize(run.cfg, run.device)
            results = run_tests(
                run.cfg, model, distributed=False, precision=precision, normalize=normalize, steps=batches
            )
            figures = figures_of(results)
            logger.info("Debug run: %d batch(es) of %s", batches, name)
    return figures


def run_processes(args: argparse.Namespace, devices: int, folder: Path) -> Figures:
    """tools/train_net.py on so many devices of this machine, by torchrun.

    Raises:
        ChildProcessError: it failed.
    """
    words = ["--config-file", args.config_file, "--json-summary", args.json_summary]
    words += ["--skip-test"] if args.skip_test else []
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    # In a session of its own: Ctrl-C reaches this process alone, which tells the others once.
    child = subprocess.Popen([*launcher, str(_TRAIN_NET), *words, *args.opts], start_new_session=True)
    try:
        status = child.wait()
    except (KeyboardInterrupt, Interrupted):
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if status:
        raise ChildProcessError(f"training on {devices} devices ended with status {status}; {folder}/log.txt says more")
    return read_figures(folder)


def read_figures(folder: Path) -> Figures:
    """The last figures of a run that has ended, from its manifest."""
    end = orjson.loads((folder / MANIFEST_FILE).read_bytes())["end"]
    return end["evaluation"]


def parse_objective(objective: str | Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """``objective`` as (task, figure) pairs, checked before anything is trained.

    Raises:
        ValueError: there is no such figure.
    """
    names = [objective] if isinstance(objective, str) else list(objective or ())
    pairs = []
    for name in names:
        task, _, figure = str(name).partition(".")
        if figure not in CocoResults.METRICS.get(task, ()):
            known = {each: ", ".join(figures) for each, figures in CocoResults.METRICS.items()}.get(task)
            choice = f"{task} has {known}" if known else f"the first part is one of {', '.join(CocoResults.METRICS)}"
            raise ValueError(f"objective={name}: there is no such figure; {choice} (such as bbox.AP)")
        pairs.append((task, figure))
    return tuple(pairs)


def select_objective(figures: Figures, objective: Sequence[tuple[str, str]]) -> float | tuple[float, ...] | None:
    """The figures that were asked for; by default the AP of masks, or of boxes where there are no masks.

    Raises:
        ValueError: the run has tested something else.
    """
    if not objective:
        task = next((each for each in ("segm", "bbox", *figures) if "AP" in figures.get(each, {})), None)
        return figures[task]["AP"] if task else None
    missing = [f"{task}.{figure}" for task, figure in objective if figure not in figures.get(task, {})]
    if missing:
        tested = ", ".join(figures) or "nothing"
        raise ValueError(f"objective={missing[0]}: this run has no such figure; tested was {tested}")
    values = tuple(figures[task][figure] for task, figure in objective)
    return values[0] if len(values) == 1 else values


def settle_name(folder: Path, *, interrupted: bool) -> Path:
    """Give the folder of an interrupted run its suffix, or take it from one that has ended; a taken name stays free.

    Returns:
        Where the run lies now.
    """
    name = folder.name.removesuffix(INTERRUPTED_SUFFIX)
    target = folder.with_name(f"{name}{INTERRUPTED_SUFFIX}" if interrupted else name)
    if target != folder and not target.exists():
        folder.rename(target)
        folder = target
    if interrupted:
        sys.stderr.write(f"\ninterrupted: with hydra.run.dir={folder} and the same settings the run goes on\n")
    return folder


@contextlib.contextmanager
def _torch_settings() -> Iterator[None]:
    """Keeps what a job sets for its whole process from the next one."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    precisions = [backend.fp32_precision for backend in backends]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = cudnn
        for backend, value in zip(backends, precisions, strict=True):
            backend.fp32_precision = value
        comm.destroy_process_group()


@contextlib.contextmanager
def _hydra_log() -> Iterator[None]:
    """Has the lines of log.txt in Hydra's own log of the job too."""
    package, root = logging.getLogger("maskrcnn_benchmark"), logging.getLogger()
    files = [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]
    for handler in files:
        handler.setLevel(logging.INFO)
        package.addHandler(handler)
    try:
        yield
    finally:
        for handler in files:
            package.removeHandler(handler)
