"""The trace of a training run: what each iteration saw and gave, exactly, so that two runs can be laid side by side.

A file of JSON lines without times, so equal runs agree byte for byte. A run that was interrupted and resumed does too,
but for the weights of a checkpoint that was written because of the interruption.

    {"iteration": 0, "weights": "<sha256>"}                               the weights that training begins with
    {"iteration": 7, "learning_rate": 0.0021, "images": [139, 285], "losses": {"loss_mask": 0.69171142578125, ...}}
    {"iteration": 2500, "weights": "<sha256>"}                            the weights of each checkpoint

Losses are means over processes, float32 written so that they read back to the last bit; images are those of the first
process. Layout 1, which manifest.json names.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from maskrcnn_benchmark.tracking.json_lines import cut_back
from maskrcnn_benchmark.utils.digest import digest_tensors

logger = logging.getLogger("maskrcnn_benchmark.trainer")

TRACE_FILE = "trace.jsonl"
TRACE_FORMAT = 1


class Trace:
    """Writes the trace of one run.

    Iterations wait here until their losses are read from the device, which the training loop does now and then anyway.
    What cannot be written, on a full disk for instance, is tried again with the next lines.

    Args:
        path: the file; None: nothing is kept.
        iteration: iterations done before. Of an existing file, what comes after is cut off: a run that was killed may
            have gone further than its last checkpoint.
        image_ids: data set index -> image id; None: the indices are written.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self, path: str | None = None, *, iteration: int = 0, image_ids: Mapping[int, Any] | None = None
    ) -> None:
        self.path = path
        self.image_ids = image_ids
        self.waiting: dict[int, tuple[float, Sequence[int]]] = {}
        self.digests: dict[int, str] = {}  # of the weights, by iteration
        self.unwritten, self.size = b"", 0
        if path is not None:
            with open(path, "ab"):
                pass
            cut_back(path, iteration if iteration else -1)
            self.size = os.path.getsize(path)
            self.digests = {line["iteration"]: line["weights"] for line in read_trace(path) if "weights" in line}

    def begin(self, iteration: int, learning_rate: float, indices: Sequence[int]) -> None:
        """An iteration begins, over the images with these data set indices."""
        if self.path is not None:
            self.waiting[iteration] = learning_rate, indices

    def write(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Write iterations that have begun, each with its losses by name; their sum, "loss", is left out."""
        lines = []
        for iteration, losses in rows if self.path is not None else ():
            learning_rate, indices = self.waiting.pop(iteration)
            ids = [self.image_ids[index] if self.image_ids is not None else int(index) for index in indices]
            exact = {name: _exact(losses[name]) for name in sorted(losses) if name != "loss"}
            lines.append({"iteration": iteration, "learning_rate": learning_rate, "images": ids, "losses": exact})
        self._append(lines)

    def write_weights(self, iteration: int, model: nn.Module) -> None:
        """Write what the weights of a model, wrapped or not, are after an iteration. Waits for the device.

        Call it before their checkpoint is written: the line is on the disk when this returns, so that a run that goes
        on from the checkpoint finds it.
        """
        if self.path is not None and iteration not in self.digests:
            digest = self.digests[iteration] = digest_tensors(getattr(model, "module", model).state_dict())
            self._append([{"iteration": iteration, "weights": digest}], sync=True)

    def _append(self, lines: Sequence[Mapping[str, Any]], *, sync: bool = False) -> None:
        if self.path is None or not lines:
            return
        was_behind = bool(self.unwritten)
        self.unwritten += "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        try:
            with open(self.path, "r+b") as file:
                file.truncate(self.size)  # half a line of an attempt that failed
                file.seek(self.size)
                file.write(self.unwritten)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            if not was_behind:
                logger.warning("%s cannot be written (%s); this is tried again", self.path, error.strerror or error)
            return
        self.size += len(self.unwritten)
        self.unwritten = b""


def read_trace(path: str) -> Iterator[dict[str, Any]]:
    """The lines of a trace in their order, up to half a line that a killed run may have left.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                return
            if not isinstance(line, dict):
                return
            yield line


def _exact(value: float) -> float | str:
    # "nan" and "inf" are no JSON numbers.
    return value if abs(value) < math.inf else str(value)
