"""Start a training under torchrun, alone or as a task of ClearML: what tools/clearml_train.py does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.clearml_data import make_data_folder
from maskrcnn_benchmark.apps.clearml_options import LaunchOptions, make_options, make_parser
from maskrcnn_benchmark.apps.clearml_task import (
    begin_task,
    find_task,
    finish_task,
    import_clearml,
    is_remote,
    make_destination,
    read_overrides,
)
from maskrcnn_benchmark.apps.errors import user_errors

logger = logging.getLogger("maskrcnn_benchmark")

ROOT = Path(__file__).resolve().parents[2]
STATUS_VARIABLE = "MASKRCNN_STATUS_FILE"
SIGNALS_VARIABLE = "TORCHELASTIC_SIGNALS_TO_HANDLE"


@dataclass(frozen=True)
class Plan:
    """What the config says of a run before it starts.

    Args:
        project, name: of the ClearML task.
        pairs: config keys and values for the training, in turn.
        output_dir: where its results go.
    """

    project: str
    name: str
    pairs: Sequence[str]
    output_dir: str


def main(cfg: CfgNode, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program; it ends with the exit status of the training.

    Args:
        cfg: the config tree with its defaults; stays as it is.
        arguments: words after the command; those of the process by default.
    """
    try:
        run(cfg, arguments)
    except SystemExit as end:
        sys.exit(end.code)  # ClearML listens to this function; without it a task that failed would count as completed


@user_errors()
def run(cfg: CfgNode, arguments: Sequence[str] | None) -> NoReturn:
    """As ``main``; ends with SystemExit."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    clearml = import_clearml()
    options = make_options(make_parser().parse_args(arguments))
    config = find_config(options.config)
    task = find_task(clearml)
    plan = make_plan(cfg, config, options, task)
    if task is None:
        task = begin_task(clearml, plan.project, plan.name)
    pairs = make_pairs(cfg, config, plan, task)
    data = make_data_folder(options.dataset_id, options.dataset_path, overwrite=options.overwrite)
    if data:
        os.environ["DATA_DIR"] = data
    if is_remote(task):
        make_destination(task)
        build_kernels()
    tool = [str(ROOT / "tools" / "train_net.py"), "--config-file", config]
    summary = ["--json-summary", os.path.join(plan.output_dir, "dllogger.out")]
    status = launch(options, [*tool, *summary, *pairs])
    finish_task(task, status)
    raise SystemExit(status)


def find_config(path: str) -> str:
    """The config file, seen from the working folder or from the repository.

    Raises:
        FileNotFoundError: it is in neither.
    """
    for place in (Path(path), ROOT / path):
        if place.is_file():
            return str(place)
    raise FileNotFoundError(f"the config file {path!r} exists neither here nor below {ROOT}")


def make_plan(cfg: CfgNode, config: str, options: LaunchOptions, task: Any | None) -> Plan:
    """Read the config with what is to be changed in it; a mistake ends here, once, before there are processes.

    An agent's run writes to a folder of its own, any other to one for its config, unless OUTPUT_DIR is set.

    Raises:
        ValueError, KeyError, OSError: the config or a key is wrong.
    """
    pairs = [*options.opts, *read_overrides(task)]
    cfg = _merged(cfg, config, pairs)
    stem = Path(config).stem
    if cfg.source_of("OUTPUT_DIR") is None:
        pairs += ["OUTPUT_DIR", os.path.join("results", task.id if is_remote(task) else stem)]
        cfg.merge_from_list(pairs)
    os.makedirs(cfg.OUTPUT_DIR or ".", exist_ok=True)
    project = "/".join(filter(None, (cfg.TRACKING.PROJECT, cfg.TRACKING.EXPERIMENT)))
    return Plan(project, cfg.TRACKING.NAME or f"MaskRCNN_{stem}", pairs, cfg.OUTPUT_DIR)


def make_pairs(cfg: CfgNode, config: str, plan: Plan, task: Any | None) -> list[str]:
    """The config keys and values of the training: with a task it reports to ClearML, to an agent's its model too."""
    pairs = list(plan.pairs)
    cfg = _merged(cfg, config, pairs)
    if task is not None and "clearml" not in cfg.TRACKING.BACKENDS:
        pairs += ["TRACKING.BACKENDS", str((*cfg.TRACKING.BACKENDS, "clearml"))]
    if is_remote(task) and cfg.source_of("TRACKING.UPLOAD_MODEL") is None:
        pairs += ["TRACKING.UPLOAD_MODEL", "True"]  # the agent's folder is gone afterwards
    return pairs


def build_kernels() -> None:
    """Compile the extension where an agent's clone has none; without it the plain kernels run, which are slower."""
    if os.environ.get("SKIP_SETUP") or any((ROOT / "maskrcnn_benchmark").glob("_C*.so")):
        return
    logger.info("Compiling the extension (SKIP_SETUP=1 leaves that out)")
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        logger.warning("The extension does not compile; the plain kernels are used. It says:\n%s", done.stdout[-2000:])


def launch(options: LaunchOptions, words: Sequence[str]) -> int:
    """Run a tool with its arguments under torchrun, and pass on to it what this process is told by signals.

    torchrun is a process of its own: in this one ClearML would take its options for ours, store them, and put those of
    the run that a task was cloned from in their place.

    Returns:
        The exit status: that of the first process which failed, 0 where none did.
    """
    # With several nodes the same, with an eye on the connections between them.
    torchrun = [str(ROOT / "scripts" / "launch.py")] if options.has_nodes else ["-m", "torch.distributed.run"]
    command = [sys.executable, "-u", *torchrun, *options.torchrun, str(ROOT / "scripts" / "worker.py"), *words]
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "status"
        own = {STATUS_VARIABLE: str(file), "PYTHONPATH": os.pathsep.join(paths)}
        # A batch system may send SIGUSR1; by default torchrun would die of it and leave its processes alone.
        environment = {SIGNALS_VARIABLE: "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", **os.environ, **own}
        # A session of its own: Ctrl-C of a terminal then comes once.
        with subprocess.Popen(command, env=environment, start_new_session=True) as process, _passing_on(process):
            status = process.wait()
        # torchrun itself ends with 1, whatever the reason.
        if status and file.exists():
            status = int(file.read_text() or status)
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Tell torchrun to stop when this process is told so: once, since a second signal would end it at once."""
    told = False

    def tell(number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            return
        told = True
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal would
            else:
                process.terminate()

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, tell) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _merged(cfg: CfgNode, config: str, pairs: Sequence[str]) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_file(config)
    cfg.merge_from_list(list(pairs))
    return cfg
