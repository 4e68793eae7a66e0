"""The first steps of train and test: arguments, config, device, processes, output folder, log."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.nodes import tell_of_own_folders, validate_agreement
from maskrcnn_benchmark.apps.own_classes import build_classes
from maskrcnn_benchmark.apps.sinks import make_sinks
from maskrcnn_benchmark.checkpoint.files import remove_leftovers, write_atomically
from maskrcnn_benchmark.checkpoint.lock import FolderLock
from maskrcnn_benchmark.config import validate
from maskrcnn_benchmark.engine.seeding import use_deterministic_kernels
from maskrcnn_benchmark.solver.world_size import make_schedule_for_world
from maskrcnn_benchmark.tracking import MetricSink
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.allocator import keep_pages, reserve_huge_pages
from maskrcnn_benchmark.utils.collect_env import collect_env_info
from maskrcnn_benchmark.utils.env import setup_environment
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.miscellaneous import mkdir
from maskrcnn_benchmark.utils.peers import watch_peers
from maskrcnn_benchmark.utils.run_clock import start_run_clock

logger = logging.getLogger("maskrcnn_benchmark")


@dataclass
class Run:
    """One started program.

    Args:
        cfg: the frozen config.
        device: where this process computes.
        output_dir: existing folder for results, "" for none.
        sink: receives the run's figures; empty on processes that do not write.
        use_amp: ``--fp16`` or ``--amp`` was given.
        lock: keeps other training runs out of the folder.
        iteration: after which the weights to test were saved, where that is known.
        clock: seconds since the program was started.
    """

    cfg: CfgNode
    device: torch.device
    output_dir: str
    sink: MetricSink
    use_amp: bool
    lock: FolderLock | None = None
    iteration: int | None = None
    clock: Callable[[], float] = field(default_factory=start_run_clock)

    def close(self, status: str = "finished") -> None:
        """Write out the figures, which end with this status, and let the folder go."""
        self.sink.finish(status)
        if self.lock is not None:
            self.lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.close("failed" if isinstance(error, Exception) else "interrupted")


def start_run(args: argparse.Namespace, cfg: CfgNode, *, training: bool, testing: bool) -> Run:
    """Everything before the first part of the network is built.

    Args:
        args: options of ``options.common``, and max_steps and skip_checkpoint of train.
        cfg: the defaults; stays as it is.
        training, testing: which settings are checked.

    Raises:
        ValueError, KeyError, OSError: a setting is wrong, or the output folder cannot be written, or another run trains
            there.
    """
    clock = start_run_clock()
    setup_environment()
    keep_pages()
    cfg = build_config(args, cfg)
    device, notice = build_device(args, cfg)
    if device.type == "cpu":
        reserve_huge_pages()
    make_deterministic(cfg, device)  # before NCCL reads which algorithms it may use
    make_process_group(cfg, device)
    watch_peers()
    validate_agreement(cfg)
    scaled = make_schedule_for_world(cfg, comm.get_world_size())
    validate(cfg, world_size=comm.get_world_size(), training=training, testing=testing)
    set_threads(cfg, device)
    output_dir = make_output_folder(cfg)
    lock = lock_output_folder(output_dir) if training else None
    setup_logger("maskrcnn_benchmark", output_dir, comm.get_rank())
    for line in filter(None, (notice, scaled)):
        logger.warning(line)
    tell_of_own_folders(output_dir)
    build_classes(cfg, training=training)
    cfg.freeze()
    make_config_file(cfg)
    sink = make_sinks(cfg, args, output_dir)
    sink.log("PARAMETER", {"gpu_count": comm.get_world_size(), "config_file": args.config_file})
    logger.info("Using %d process(es) on %s", comm.get_world_size(), device.type)
    logger.info("Environment:\n%s", collect_env_info())
    logger.debug("Running with config:\n%s", cfg)
    return Run(cfg, device, output_dir, sink, use_amp=args.fp16 or args.amp, lock=lock, clock=clock)


def build_config(args: argparse.Namespace, cfg: CfgNode) -> CfgNode:
    """The defaults, then the file, then the options typed after the command, then the flags that stand for keys."""
    cfg = cfg.clone()
    cfg.defrost()
    if args.config_file:
        cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if getattr(args, "max_steps", 0) > 0:
        cfg.SOLVER.MAX_ITER = args.max_steps
    if getattr(args, "skip_checkpoint", False):
        cfg.SAVE_CHECKPOINT = False
    return cfg


def build_device(args: argparse.Namespace, cfg: CfgNode) -> tuple[torch.device, str]:
    """The device of this process, and a sentence for the log where it is not the configured one.

    MODEL.DEVICE, set to the type that is used, falls from cuda to cpu on a machine without CUDA.

    Raises:
        ValueError: MODEL.DEVICE is no device, or cuda was typed after the command and there is none.
    """
    try:
        wanted = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ValueError(f"MODEL.DEVICE must be cpu or cuda, got {cfg.MODEL.DEVICE!r}") from error
    if wanted.type not in ("cpu", "cuda"):
        raise ValueError(f"MODEL.DEVICE must be cpu or cuda, got {cfg.MODEL.DEVICE!r}")
    notice = ""
    if wanted.type == "cuda" and not torch.cuda.is_available():
        if "MODEL.DEVICE" in args.opts[::2]:
            raise ValueError(
                f"MODEL.DEVICE {cfg.MODEL.DEVICE} was asked for, but torch {torch.__version__} finds no CUDA device; "
                "set MODEL.DEVICE cpu, or install a driver and a CUDA build of torch"
            )
        wanted, notice = torch.device("cpu"), "No CUDA device was found: running on the CPU"
    if wanted.type == "cuda":
        wanted = _own_gpu(wanted, args.local_rank)
    cfg.MODEL.DEVICE = wanted.type
    return wanted, notice


def make_process_group(cfg: CfgNode, device: torch.device) -> None:
    """Join the other processes, of which none waits longer than PROCESS_TIMEOUT for another."""
    comm.init_process_group(device, timeout_seconds=cfg.PROCESS_TIMEOUT)


def make_deterministic(cfg: CfgNode, device: torch.device) -> None:
    """Choose the kernels that DETERMINISTIC asks for; on a CPU there is no choice."""
    if cfg.DETERMINISTIC and device.type == "cuda":
        use_deterministic_kernels()


def set_threads(cfg: CfgNode, device: torch.device) -> None:
    """Let PyTorch use the threads that CPU_THREADS asks for; on a GPU the CPU has little to compute."""
    if cfg.CPU_THREADS and device.type == "cpu":
        torch.set_num_threads(cfg.CPU_THREADS)


def make_output_folder(cfg: CfgNode) -> str:
    """Make OUTPUT_DIR and check that it can be written.

    Raises:
        OSError: it cannot be made or written.
    """
    folder = cfg.OUTPUT_DIR
    if not folder:
        return ""
    with _writing(folder):
        mkdir(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def lock_output_folder(folder: str) -> FolderLock | None:
    """Keep other training runs out of OUTPUT_DIR, and remove what one that was killed has half written.

    Raises:
        OSError: another run trains there.
    """
    if not folder or not comm.is_main_process():
        return None
    lock = FolderLock(folder)
    remove_leftovers(folder)
    return lock


def make_config_file(cfg: CfgNode) -> None:
    """Keep the config in OUTPUT_DIR as config.yml.

    Raises:
        OSError: it cannot be written.
    """
    if cfg.OUTPUT_DIR and comm.is_main_process():
        path = os.path.join(cfg.OUTPUT_DIR, "config.yml")
        with _writing(cfg.OUTPUT_DIR):
            write_atomically(path, lambda file: file.write(cfg.dump().encode()))


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Name the folder and the remedy where it cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"OUTPUT_DIR {folder!r} cannot be written ({reason}); choose another one") from error


def _own_gpu(wanted: torch.device, local_rank: int) -> torch.device:
    # One process a GPU; a single process takes the one it was told.
    index = wanted.index if wanted.index is not None and comm.get_local_world_size() == 1 else local_rank
    if index >= torch.cuda.device_count():
        raise ValueError(f"process {local_rank} has no GPU: this machine has {torch.cuda.device_count()}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
