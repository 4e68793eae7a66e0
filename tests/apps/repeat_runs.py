"""Small training runs to lay side by side: one data set, an output folder each."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.apps.compare_runs import compare
from tests.apps.tiny_run import TinyRun

KEYS = {"CPU_THREADS": 1, "DATALOADER.NUM_WORKERS": 0}


class Runs:
    """Runs by name.

    Args:
        folder: where data and outputs lie.
        repository: of the checkout.
    """

    def __init__(self, folder, repository):
        self.folder, self.repository = folder, repository
        self.tiny = TinyRun(folder)

    def path(self, name):
        return self.folder / name

    def train(self, name, *flags, **keys):
        """A run in this process; keys have __ for a dot. Returns its folder."""
        self.tiny.train(*flags, keys=self._keys(name, keys))
        return self.path(name)

    def launch(self, name, *flags, launcher=(), variables=None, **keys):
        """A run as a program of its own."""
        command = [
            sys.executable,
            *launcher,
            "tools/train_net.py",
            *self.tiny.command(*flags, keys=self._keys(name, keys)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.repository), **(variables or {})}
        done = subprocess.run(command, cwd=self.repository, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return self.path(name)

    def copy(self, name, of):
        """A copy of a run's folder, to change something in it."""
        return shutil.copytree(self.path(of), self.path(name))

    def compare(self, a, b):
        """Exit status and report of tools/compare_runs.py."""
        status, lines = compare(str(self.path(a)), str(self.path(b)))
        return status, "\n".join(lines)

    def manifest(self, name):
        return json.loads((self.path(name) / "manifest.json").read_text())

    def _keys(self, name, keys):
        return {**KEYS, **{key.replace("__", "."): value for key, value in keys.items()}, "OUTPUT_DIR": self.path(name)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository):
    """The runs of a module; "whole" is there, four iterations and an evaluation."""
    folder = tmp_path_factory.mktemp("runs")
    num_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        all_runs = Runs(folder, repository)
        all_runs.train("whole")
        yield all_runs
    torch.set_num_threads(num_threads)
    logger = logging.getLogger("maskrcnn_benchmark")
    for handler in [each for each in logger.handlers if getattr(each, "made_by_setup_logger", False)]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
