"""The platform as a whole: it starts tasks, judges how they ended, keeps their models, and cleans up after them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ymir.platform import consumer, runner, storage
from tests.ymir.platform.producer import Job, Order, produce
from tests.ymir.platform.runner import Run
from tests.ymir.platform.storage import StoredModel

UNKNOWN_ERROR = 160004
NO_RESULT = 160011
# What is left of a task that went well. The links in tensorboard are the platform's own.
KEPT = {"in/config.yaml"} | {
    f"out/{name}" for name in ("log.txt", "monitor.txt", "monitor-log.txt", "ymir-executor-out.log",
                               "infer-result.json", "result.tsv")
}  # fmt: skip
KEPT_FOLDERS = ("out/tensorboard",)


@dataclass
class Outcome:
    """What the platform knows of a task that has ended.

    Attributes:
        code: 0, or what YMIR shows as the reason of a failure.
        shown: the last five lines of the log, which YMIR shows after a failure.
        model: what was saved; after a failure too, where result.yaml lists files.
    """

    run: Run
    code: int
    shown: str
    result: dict[str, Any] | None = None
    mined: list[tuple[str, float]] | None = None
    inferred: dict[str, list[dict[str, Any]]] | None = None
    scalars: dict[str, list[float]] | None = None
    model: StoredModel | None = None


class Platform:
    """A workplace: tasks below ``folder``/sandbox, models below ``folder``/models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "models"

    def prepare(self, order: Order) -> Job:
        """A task's folders, before it starts."""
        name = f"task{len(list(self.folder.glob('sandbox/*')))}"
        return produce(self.folder / "sandbox" / name, order)

    def execute(self, order: Order, **options: Any) -> Outcome:
        """Prepares a task, runs it to its end, and takes over its results."""
        return self.finish(runner.run(self.prepare(order), **options))

    def run(self, job: Job, **options: Any) -> Outcome:
        """Runs a task that was prepared; its folders stay as they are."""
        return self.finish(runner.run(job, **options), clean=False)

    def finish(self, run: Run, clean: bool = True) -> Outcome:
        """Reads what the task left; then, after a success, removes what the platform does not keep."""
        job = run.job
        shown = "\n".join(run.log.splitlines()[-5:])
        if run.status != 0:
            outcome = Outcome(run, run.last.code or UNKNOWN_ERROR, shown)
            if "training" in job.order.tasks and (job.target / "models" / "result.yaml").exists():
                self._take_training(outcome)
            return outcome
        assert (run.last.state, run.last.percent) == (2, 1.0), f"the last record of a success is {run.last}"
        assert {record.code for record in run.records} <= {None, 0}
        outcome = Outcome(run, 0, shown)
        if "training" in job.order.tasks:
            self._take_training(outcome)
            outcome.scalars = consumer.check_tensorboard(job)
        if "mining" in job.order.tasks:
            outcome.mined = consumer.read_mining_result(job)
        if "infer" in job.order.tasks:
            outcome.inferred = consumer.read_infer_result(job)
        if clean:
            clean_up(job)
        return outcome

    def _take_training(self, outcome: Outcome) -> None:
        job = outcome.run.job
        outcome.result = consumer.read_training_result(job)
        outcome.model = storage.save_result(
            job.target / "models", outcome.result, self.store, list(job.order.class_names), job.order.object_type or 2
        )


def clean_up(job: Job) -> None:
    """Removes all of /in and /out but the files and folders that YMIR names."""
    for root in (job.source, job.target):
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())):
            folder.chmod(0o755)  # those of /in were read-only
        for path in sorted(root.rglob("*"), reverse=True):
            name = path.relative_to(job.folder).as_posix()
            if name in KEPT or any(f"{name}/".startswith(f"{each}/") for each in KEPT_FOLDERS):
                continue
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()
    shutil.rmtree(job.folder / "tmp", ignore_errors=True)
