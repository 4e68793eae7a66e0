"""OUTPUT_DIR/manifest.json: everything that the bits of a training run depend on, and how the run went.

Layout 1, described in docs/reproducibility.md:

    format    1
    trace     {file, format} of the run's trace, see ``tracking.trace``
    facts     of the first start: program, versions, machine, environment, execution, config, data, weights
    starts    one entry a start: time (UTC), iteration, command, changes: {dotted fact: [at the first start, now]}
    end       null while the run goes on, and when it was killed; later time, reason, iteration, weights_sha256,
              evaluation (figures of the first test set)
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import orjson
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.apps.manifest_facts import (
    environment_facts,
    execution_facts,
    gather_processes,
    make_config_facts,
    make_data_facts,
    make_weights_facts,
    name_odd_processes,
    program_facts,
    without_secrets,
)
from maskrcnn_benchmark.checkpoint.files import write_atomically
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.tracking.trace import TRACE_FILE, TRACE_FORMAT, Trace
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.nested import flatten

logger = logging.getLogger("maskrcnn_benchmark")

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1


class RunRecord:
    """Writes the manifest and opens the trace of a training run; as a context manager it also notes how the run ends.

    Nothing here ends a run: what cannot be found out or written is named in a warning. Only the first process writes.

    Args:
        output_dir: folder of both files; "" for none.
    """

    def __init__(self, output_dir: str) -> None:
        self.folder = output_dir if comm.is_main_process() else ""
        self.trace = Trace()
        self.content: dict[str, Any] = {}
        self.arguments: Mapping[str, Any] = {"iteration": 0}
        self.evaluation: Mapping[str, Any] = {}
        self.reason = "finished"

    def begin(
        self,
        cfg: CfgNode,
        model: nn.Module,
        loader: Any,
        precision: Precision,
        device: torch.device,
        arguments: Mapping[str, Any],
    ) -> Trace:
        """Write the manifest of a start; all processes must call this.

        Args:
            cfg: the whole config.
            model: with the weights that training begins with, wrapped or not.
            loader: of training.
            precision, device: of training.
            arguments: what the training loop keeps ``iteration`` in.

        Returns:
            The trace, for the training loop.
        """
        begin = time.perf_counter()
        self.arguments = arguments
        processes = gather_processes(device)
        if not self.folder:
            return self.trace
        iteration = arguments["iteration"]
        with _only_warning(TRACE_FILE):
            path = os.path.join(self.folder, TRACE_FILE)
            ids = getattr(loader.dataset, "id_to_img_map", None)
            self.trace = Trace(path, iteration=iteration, image_ids=ids)
            if not iteration:
                self.trace.write_weights(0, model)
        with _only_warning(MANIFEST_FILE):
            facts = {
                "program": program_facts(),
                **environment_facts(),
                "execution": {
                    **execution_facts(device, precision, loader),
                    "odd_processes": name_odd_processes(processes),
                },
                "config": make_config_facts(cfg),
                "data": make_data_facts(cfg, loader.dataset),
                "weights": make_weights_facts(cfg, self.trace.digests.get(0)),
            }
            self._write_start(iteration, facts)
        logger.debug("Manifest and trace were begun in %.3f s", time.perf_counter() - begin)
        return self.trace

    def finish(self, reason: str, evaluation: Mapping[str, Any]) -> None:
        """The run comes to its end by itself, for this reason, with these figures of its evaluation."""
        self.reason, self.evaluation = reason, evaluation

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.content:
            return
        iteration = self.arguments["iteration"]
        with _only_warning(MANIFEST_FILE):
            self.content["end"] = {
                "time": _now(),
                "reason": self.reason if error is None else _describe_end(error),
                "iteration": iteration,
                "weights_sha256": self.trace.digests.get(iteration),
                "evaluation": dict(self.evaluation),
            }
            self._write()

    def _write_start(self, iteration: int, facts: dict[str, Any]) -> None:
        """Write the manifest with one more start, or that of a new run in the place of an old one's."""
        try:
            before = read_manifest(self.folder)  # a file of that name that is none of ours stays: this raises
        except FileNotFoundError:
            before = {}
        if not iteration:
            before = {}
        first = before.get("facts", facts)
        if before:
            facts["weights"] = first["weights"]  # a run that goes on has read a checkpoint
        self.content = {
            "format": MANIFEST_FORMAT,
            "trace": {"file": TRACE_FILE, "format": TRACE_FORMAT},
            "facts": first,
            "starts": [*before.get("starts", ()), _describe_start(iteration, first, facts)],
            "end": None,
        }
        self._write()

    def _write(self) -> None:
        text = orjson.dumps(without_secrets(self.content), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        write_atomically(os.path.join(self.folder, MANIFEST_FILE), lambda file: file.write(text))


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest in a run's folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of a later layout.
    """
    path = os.path.join(folder, MANIFEST_FILE)
    try:
        with open(path, "rb") as file:
            content = orjson.loads(file.read())
        version = content["format"]
        if not isinstance(content["facts"], dict) or not isinstance(content["starts"], list):
            raise ValueError("facts or starts are missing")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if version != MANIFEST_FORMAT:
        raise ValueError(f"{path} has layout {version}, this program reads {MANIFEST_FORMAT}")
    return content


def _describe_start(iteration: int, first: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    # As it will be read back: hidden secrets and tuples are no change.
    old, new = (flatten(orjson.loads(orjson.dumps(without_secrets(facts)))) for facts in (first, now))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {
        "time": _now(),
        "iteration": iteration,
        "command": shlex.join(sys.argv),
        "changes": {key: [old.get(key), new.get(key)] for key in changed},
    }


def _describe_end(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return f"exit status {error.code}"
    return f"{type(error).__name__}: {describe(error)}"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@contextlib.contextmanager
def _only_warning(name: str) -> Iterator[None]:
    """A record that fails must not cost the run."""
    try:
        yield
    except Exception as error:
        logger.warning("%s is not complete: %s", name, describe(error))
        logger.debug("traceback", exc_info=True)
