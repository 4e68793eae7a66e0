"""What Hydra calls beside the jobs; conf/config.yaml names it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

_SWEEP_FILES = ("multirun.yaml", "optimization_results.yaml")


class LeaveNothing(Callback):
    """Takes away what Hydra itself writes of a debug run: its settings, its log, and folders that are empty then."""

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """Called after each job, in its process."""
        if not config.trainer.fast_dev_run:
            return
        folder = Path(config.hydra.runtime.output_dir)
        if config.hydra.output_subdir:
            shutil.rmtree(folder / config.hydra.output_subdir, ignore_errors=True)
        (folder / f"{config.hydra.job.name}.log").unlink(missing_ok=True)
        _remove_empty(folder)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Called after a sweep."""
        if not config.trainer.fast_dev_run:
            return
        folder = Path(config.hydra.sweep.dir)
        for name in _SWEEP_FILES:
            (folder / name).unlink(missing_ok=True)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those above it, up to the first that holds something or is the current one."""
    folder = folder.resolve()
    with contextlib.suppress(OSError):
        while folder != Path.cwd():
            folder.rmdir()
            folder = folder.parent
