"""The options of tools/clearml_train.py, which an agent of ClearML may set without a command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

# torchrun's options, of which each is also understood with hyphens. Left out: those that choose what is run.
TORCHRUN_VALUES = {
    "nnodes": "number of nodes, or MIN:MAX",
    "nproc_per_node": "processes on this node: a number, gpu, cpu or auto",
    "rdzv_backend": "how the nodes find one another: static, c10d or etcd-v2",
    "rdzv_endpoint": "where they do, HOST:PORT",
    "rdzv_id": "name of the job",
    "rdzv_conf": "settings of the backend, KEY=VALUE,...",
    "max_restarts": "how often a failed job starts again",
    "monitor_interval": "seconds between two looks at the processes",
    "start_method": "of multiprocessing: spawn, fork or forkserver",
    "event_log_handler": "where torchrun's own events go",
    "role": "name of the processes in torchrun's messages",
    "log_dir": "folder for what the processes print",
    "redirects": "which of their streams go there alone: 0 to 3, or RANK:0 to RANK:3",
    "tee": "which go there too",
    "local_ranks_filter": "whose output is shown",
    "duplicate_stdout_filters": "lines of stdout that go to a file of their own",
    "duplicate_stderr_filters": "the same of stderr",
    "node_rank": "number of this node",
    "master_addr": "address of the first node",
    "master_port": "port on it",
    "local_addr": "address of this node",
    "logs_specs": "what handles the logs",
    "numa_binding": "binds processes to memory: node, socket, exclusive or core-complex",
    "signals_to_handle": "signals that are passed on",
    "shutdown_timeout": "seconds that the processes have to end",
}
TORCHRUN_FLAGS = {
    "standalone": "one node that looks for nobody else",
    "virtual_local_rank": "every process takes itself for the first one of its node",
}
DEFAULTS = {"nproc_per_node": "1"}
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("", "false", "0", "no", "off", "none")


@dataclass(frozen=True)
class LaunchOptions:
    """What a training is started with.

    Args:
        config: path of the config file.
        opts: config keys and values in turn.
        dataset_id: of ClearML, "" for none.
        dataset_path: folder of the data, "" for what DATA_DIR and the config say.
        overwrite: fetch the data even where the folder is filled.
        torchrun: its options, as ``--name=value`` and ``--flag``.
        has_nodes: there may be more than one node.
    """

    config: str
    opts: Sequence[str] = ()
    dataset_id: str = ""
    dataset_path: str = ""
    overwrite: bool = False
    torchrun: Sequence[str] = ()
    has_nodes: bool = False


def make_parser() -> argparse.ArgumentParser:
    """The options. All are texts with a name and a default: ClearML knows neither positional nor missing ones."""
    parser = argparse.ArgumentParser(
        description="Train a detector under torchrun, by hand or as a task of a ClearML agent: docs/clearml.md",
        epilog="Everything else of torchrun's options is passed on. The run ends with the exit status of the training.",
        allow_abbrev=False,
    )
    group = parser.add_argument_group("training")
    group.add_argument(
        "--config", default="", metavar="FILE", help="config file, seen from here or from the repository"
    )
    group.add_argument("--opts", default="", metavar="TEXT", help='config keys and values: "SOLVER.MAX_ITER 100 ..."')
    group.add_argument("--dataset_id", "--dataset-id", default="", metavar="ID", help="data set of ClearML")
    group.add_argument(
        "--dataset_path", "--dataset-path", default="", metavar="FOLDER", help="where the data lie, or are unpacked to"
    )
    _add_flag(group, "overwrite", "fetch the data set also where the folder is filled")
    group = parser.add_argument_group("torchrun")
    for name, text in TORCHRUN_FLAGS.items():
        _add_flag(group, name, text)
    for name, text in TORCHRUN_VALUES.items():
        group.add_argument(*_spellings(name), dest=name, default=DEFAULTS.get(name, ""), metavar="X", help=text)
    return parser


def make_options(args: argparse.Namespace) -> LaunchOptions:
    """Read the parsed options of ``make_parser``.

    Raises:
        ValueError: one is missing or is not understood.
    """
    if not _text(args.config):
        raise ValueError("no config is given: --config FILE, or config=FILE among the --args of clearml-task")
    values = {name: _text(getattr(args, name)) for name in TORCHRUN_VALUES}
    flags = [f"--{name}" for name in TORCHRUN_FLAGS if read_flag(name, getattr(args, name))]
    return LaunchOptions(
        config=_text(args.config),
        opts=split_opts(_text(args.opts)),
        dataset_id=_text(args.dataset_id),
        dataset_path=_text(args.dataset_path),
        overwrite=read_flag("overwrite", args.overwrite),
        torchrun=[*flags, *(f"--{name}={value}" for name, value in values.items() if value)],
        has_nodes=values["nnodes"] not in ("", "1", "1:1"),
    )


def split_opts(text: str) -> list[str]:
    """Split config keys and values as a shell would.

    Raises:
        ValueError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"opts cannot be split into words ({error}): {text}") from error


def read_flag(name: str, value: object) -> bool:
    """A flag from the text that ClearML keeps of it.

    Raises:
        ValueError: it is neither true nor false.
    """
    text = _text(value).lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return text in _TRUE


def _add_flag(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(
        *_spellings(name), dest=name, nargs="?", const="True", default="False", metavar="BOOL", help=text
    )


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _text(value: object) -> str:
    # An emptied field of the web page is None or "".
    return "" if value is None else str(value).strip()
