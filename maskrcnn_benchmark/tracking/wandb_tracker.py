"""Figures to Weights & Biases: its service, a server of one's own, or files."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from maskrcnn_benchmark.tracking.tracker import TrackedRun

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class WandbTracker:
    """One W&B run. Without WANDB_API_KEY and WANDB_MODE it writes files only, for ``wandb sync``."""

    name = "wandb"

    def __init__(self) -> None:
        import wandb

        self.package = wandb

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or go on with one."""
        mode = os.environ.get("WANDB_MODE")
        if not mode:
            mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
            if mode == "offline":
                logger.info("The tracker wandb writes files only: WANDB_API_KEY is not set")
        settings = self.package.Settings(
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,  # command line, host and user are nobody's business
            quiet=True,
            init_timeout=run.timeout,
            finish_timeout=run.timeout,
        )
        self.run = self.package.init(
            project=run.project,
            group=run.experiment or None,
            name=run.name,
            tags=list(run.tags),
            config=dict(run.settings),
            dir=run.folder or None,
            id=run.run_id,
            resume="allow" if run.run_id and mode == "online" else None,
            mode=mode,
            settings=settings,
        )
        # An own axis: W&B's refuses to go back, as a resumed run does.
        self.run.define_metric("*", step_metric="iteration")
        return self.run.id

    def metrics(self, values: Mapping[str, float], iteration: int | None) -> None:
        """History over the iteration; figures of the whole run in its summary."""
        if iteration is None:
            self.run.summary.update(dict(values))
        else:
            self.run.log({**values, "iteration": iteration})

    def figure(self, name: str, path: str, iteration: int) -> None:
        """Media of the history."""
        self.run.log({name: self.package.Image(path), "iteration": iteration})

    def artifact(self, name: str, path: str) -> None:
        """An artifact of this run."""
        kind = "model" if name == "model" else "result"
        artifact = self.package.Artifact(f"{name.replace('/', '-')}-{self.run.id}", type=kind)
        artifact.add_file(path)
        self.run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        """W&B knows an exit code: 0, or 1 for a run that did not get to its end."""
        self.run.finish(exit_code=0 if status == "finished" else 1)
