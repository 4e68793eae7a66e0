"""Figures to Neptune: a server of one's own, or files.

The hosted service ended on 5 March 2026; see docs/tracking.md.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.tracking.secrets import hide_secrets
from maskrcnn_benchmark.tracking.tracker import TrackedRun

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class NeptuneTracker:
    """One Neptune run: on the server of NEPTUNE_API_TOKEN, and without one, or where it does not answer, in files.

    The files lie in .neptune below the working folder. A resumed run goes on with its run on a server; in files each
    start is a run of its own, with the same ``run_id``.
    """

    name = "neptune"

    def __init__(self) -> None:
        import neptune
        import neptune.types

        self.package = neptune

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or go on with one."""
        self.timeout = run.timeout
        run_id = run.run_id or uuid.uuid4().hex
        options = {
            "project": run.project if "/" in run.project else None,  # None: NEPTUNE_PROJECT
            "custom_run_id": run_id,
            "name": run.name,
            "tags": list(run.tags) or None,
            # Config and manifest say all that is needed, and without whatever the machine has beside.
            "source_files": [],
            "git_ref": False,
            "capture_stdout": False,
            "capture_stderr": False,
            "capture_hardware_metrics": False,
            "capture_traceback": False,
        }
        self.run = self._begin(options)
        self.run["run_id"] = run_id
        if run.experiment:
            self.run["sys/group_tags"].add([run.experiment])
        for key, value in run.settings.items():
            self.run[f"config/{key.replace('.', '/')}"] = value if isinstance(value, (bool, int, float)) else str(value)
        return run_id

    def metrics(self, values: Mapping[str, float], iteration: int | None) -> None:
        """Series below metrics/; figures of the whole run below summary/."""
        for name, value in values.items():
            if iteration is None:
                self.run[f"summary/{name}"] = value
            else:
                self.run[f"metrics/{name}"].append(value, step=iteration)

    def figure(self, name: str, path: str, iteration: int) -> None:
        """Below figures/."""
        self._upload(f"figures/{name}", path)

    def artifact(self, name: str, path: str) -> None:
        """Below files/."""
        self._upload(f"files/{name}", path)

    def finish(self, status: str) -> None:
        """Leave the status in the run, and stop it."""
        self.run["status"] = status
        self.run.stop(seconds=self.timeout)

    def _begin(self, options: Mapping[str, Any]) -> Any:
        mode = os.environ.get("NEPTUNE_MODE") or ("async" if os.environ.get("NEPTUNE_API_TOKEN") else "offline")
        if mode == "offline":
            logger.info("The tracker neptune writes files only: NEPTUNE_API_TOKEN is not set")
        else:
            try:
                return self.package.init_run(mode=mode, **options)
            except Exception as error:  # a client of a service that has ended can fail in every way
                reason = hide_secrets(" ".join(str(error).split()))[:300]
                logger.warning("Neptune's server cannot be used (%s); figures go to files", reason)
        return self.package.init_run(mode="offline", **options)

    def _upload(self, name: str, path: str) -> None:
        # The content is read now: the file may be gone when it is sent.
        extension = Path(path).suffix.lstrip(".")
        file = self.package.types.File
        small = os.path.getsize(path) <= 16 * 2**20
        content = file.from_content(Path(path).read_bytes(), extension=extension) if small else file.from_path(path)
        self.run[name].upload(content, wait=False)
