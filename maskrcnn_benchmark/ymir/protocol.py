"""env.yaml: where a job finds and leaves everything, and which generation of the protocol it speaks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.values import read_keys, to_flag

ENV_FILE = "/in/env.yaml"
# Both name another env.yaml, for tests; the second one is the platform's own.
ENV_FILE_VARIABLES = ("YMIR_ENV_FILE", "DEFAULT_ENV_FILE_PATH")
VERSION_VARIABLE = "YMIR_VERSION"
"""The platform's version, set in the image; asked where env.yaml names no version of the protocol."""
ORDER_VARIABLE = "YMIR_TASK_ORDER"
"""The tasks by their first letters, "tmi" or "tim"."""
_OLDEST, _DEFAULT_PLATFORM = "0.0.1", "1.1.0"
_Paths = TypeVar("_Paths", "InputPaths", "OutputPaths")


@dataclass(frozen=True)
class InputPaths:
    """What a job is given; "" where it has no such file."""

    root_dir: str = "/in"
    assets_dir: str = "/in/assets"
    annotations_dir: str = "/in/annotations"
    models_dir: str = "/in/models"
    training_index_file: str = "/in/train-index.tsv"
    val_index_file: str = "/in/val-index.tsv"
    candidate_index_file: str = "/in/candidate-index.tsv"
    config_file: str = "/in/config.yaml"


@dataclass(frozen=True)
class OutputPaths:
    """Where results go."""

    root_dir: str = "/out"
    models_dir: str = "/out/models"
    tensorboard_dir: str = "/out/tensorboard"
    training_result_file: str = "/out/models/result.yaml"
    mining_result_file: str = "/out/result.tsv"
    infer_result_file: str = "/out/infer-result.json"
    monitor_file: str = "/out/monitor.txt"
    executor_log_file: str = "/out/ymir-executor-out.log"


@dataclass(frozen=True)
class Protocol:
    """What differs between the generations.

    Args:
        has_stages: result.yaml lists stages with their figures, and detections are called ``boxes``; before, there was
            one model and they were called ``annotations``.
        has_return_codes: a record of monitor.txt has a fifth column.
    """

    has_stages: bool
    has_return_codes: bool

    @classmethod
    def of(cls, version: str, platform: str) -> Protocol:
        """By the version of env.yaml; where there is none, stages came with version 1.2.0 of the platform."""
        numbers = version_numbers(version) or version_numbers(_OLDEST)
        by_platform = (version_numbers(platform) or version_numbers(_DEFAULT_PLATFORM)) >= (1, 2, 0)
        return cls(has_stages=numbers >= (1, 0, 0) or by_platform, has_return_codes=numbers >= (1, 1, 0))


@dataclass(frozen=True)
class Environment:
    """A job as env.yaml describes it."""

    task_id: str
    run_training: bool
    run_mining: bool
    run_infer: bool
    protocol: Protocol
    input: InputPaths
    output: OutputPaths

    @property
    def mines_first(self) -> bool:
        """Whether mining comes before inference in a job that asks for both."""
        return os.environ.get(ORDER_VARIABLE, "tmi").lower() != "tim"

    @property
    def work_dir(self) -> str:
        """Where everything goes that is no result; the platform removes it."""
        return os.path.join(self.output.root_dir, ".cache")


def environment_file() -> str:
    """The path of env.yaml."""
    return next(filter(None, map(os.environ.get, ENV_FILE_VARIABLES)), ENV_FILE)


def read_environment(path: str | None = None) -> Environment:
    """Read env.yaml; keys that are missing have their defaults, others are passed over.

    Args:
        path: the file; None: ``environment_file``.

    Raises:
        JobError: it is missing, no YAML, or asks for nothing that can be done.
    """
    path = path or environment_file()
    tree = read_keys(path, "environment file")
    tasks = {name: _flag(tree, name) for name in ("run_training", "run_mining", "run_infer")}
    if not any(tasks.values()):
        raise JobError(
            ReturnCode.CONFIG, f"{path} asks for nothing: set one of run_training, run_mining and run_infer to true"
        )
    if tasks["run_training"] and (tasks["run_mining"] or tasks["run_infer"]):
        raise JobError(ReturnCode.CONFIG, f"{path} asks for training together with mining or inference; ask for one")
    return Environment(
        task_id=str(tree.get("task_id") or "default-task"),
        **tasks,
        protocol=Protocol.of(str(tree.get("protocol_version") or ""), os.environ.get(VERSION_VARIABLE, "")),
        input=_paths(InputPaths, tree.get("input"), path),
        output=_paths(OutputPaths, tree.get("output"), path),
    )


def version_numbers(text: str) -> tuple[int, ...]:
    """The first three numbers of a version such as "1.1.0"; () where it has none."""
    match = re.match(r"\s*v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in match.groups()) if match else ()


def _flag(tree: Mapping[str, Any], name: str) -> bool:
    return to_flag(tree.get(name, False), name)


def _paths(kind: type[_Paths], tree: object, source: str) -> _Paths:
    """The paths of one section; relative ones begin at its root folder."""
    if tree is not None and not isinstance(tree, dict):
        raise JobError(ReturnCode.CONFIG, f"{source}: input and output must hold paths, but one is {tree!r}")
    names = [field.name for field in fields(kind)]
    # An empty value stands for a file that the job does not have.
    given = {name: str(tree[name] or "") for name in names if name in (tree or {})}
    root = given.get("root_dir") or kind().root_dir
    defaults = {
        name: os.path.join(root, os.path.relpath(value, kind().root_dir)) if value else ""
        for name, value in ((field.name, field.default) for field in fields(kind))
    }
    paths = {**defaults, **{name: os.path.join(root, value) if value else "" for name, value in given.items()}}
    return kind(**{**paths, "root_dir": root})
