"""Figures to ClearML: a server, or with CLEARML_OFFLINE_MODE=1 a session on the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from maskrcnn_benchmark.tracking.tracker import TrackedRun

SECTION = "General"
"""Of the hyperparameters: where the config values stand."""
# Of what ClearML would patch or look for by itself, nothing: our own reports are complete, and its search for the
# repository and its requirements reads every Python file below it, for minutes, and uploads uncommitted changes.
_CAPTURED = dict.fromkeys(
    (
        "hydra", "scikit", "joblib", "matplotlib", "tensorflow", "tensorboard", "tfdefines", "pytorch", "megengine",
        "xgboost", "catboost", "fastai", "lightgbm", "gradio", "detect_repository",
    ),
    False,
)  # fmt: skip
_NAMES = {"config": "Config", "model": "Model"}  # artifacts that teams look for under these names


class ClearmlTracker:
    """The ClearML task of this process, or where there is none a new one.

    An agent, or a program that has called ``Task.init``, has made a task already: figures go there, and it stays open.
    Losses share one plot, every other figure has its own. Figures of the whole run are single values.
    """

    name = "clearml"

    def __init__(self) -> None:
        import clearml

        self.package = clearml

    def start(self, run: TrackedRun) -> str | None:
        """Take the present task, go on with the one of before, or begin one; an offline session cannot go on.

        Raises:
            clearml.backend_api.session.defs.MissingConfigError: no server is configured.
        """
        task = self._find_task()
        self.is_ours = task is None
        self.task = self._init(run) if task is None else task
        self.logger = self.task.get_logger()
        settings = {f"{SECTION}/{key}": _as_parameter(value) for key, value in run.settings.items()}
        self.task.update_parameters(settings)
        return None if self.task.is_offline() or not self.is_ours else self.task.id

    def metrics(self, values: Mapping[str, float], iteration: int | None) -> None:
        """Scalars with their iteration; of the whole run, single values."""
        for name, value in values.items():
            if iteration is None:
                self.logger.report_single_value(name, value)
            else:
                title, series = _place(name)
                self.logger.report_scalar(title, series, value, iteration)

    def figure(self, name: str, path: str, iteration: int) -> None:
        """Among the debug samples."""
        title, _, series = name.rpartition("/")
        self.logger.report_image(title or series, series, iteration=iteration, local_path=path)

    def artifact(self, name: str, path: str) -> None:
        """The model among the task's models where there is a server; everything else among its artifacts."""
        if name == "model" and not self.task.is_offline():
            model = self.package.OutputModel(task=self.task, framework="PyTorch")
            model.update_weights(weights_filename=path, auto_delete_file=False)  # the file stays ours
        else:
            self.task.upload_artifact(_NAMES.get(name, name), artifact_object=path, wait_on_upload=True)

    def finish(self, status: str) -> None:
        """Close the task, unless somebody else has begun it."""
        self.task.flush(wait_for_uploads=True)
        if not self.is_ours:
            return
        if status == "failed":
            self.task.mark_failed()
        elif status == "interrupted":
            self.task.mark_stopped()
        self.task.close()

    def _find_task(self) -> Any | None:
        """The task of this process, or of the launcher that has started it."""
        launcher, _, task_id = os.environ.get("CLEARML_PROC_MASTER_ID", "").partition(":")
        if not task_id or launcher == str(os.getpid()):
            return self.package.Task.current_task()
        # current_task would join it too, but with captures of its own: everything would be reported twice.
        return self.package.Task.init(auto_connect_arg_parser=False, auto_connect_frameworks=False)

    def _init(self, run: TrackedRun) -> Any:
        """A task that captures the console and the machine's load.

        Its reports go out from a thread. ClearML would fork a process for them, of a program that has threads and holds
        a GPU; such a copy keeps locks and pipes open, and other programs' start then waits for ever. There is no public
        switch for that but clearml.conf.
        """
        self.package.Task._report_subprocess_enabled = False
        task = self.package.Task.init(
            project_name="/".join(filter(None, (run.project, run.experiment))),
            task_name=run.name,
            tags=list(run.tags) or None,
            reuse_last_task_id=False,
            continue_last_task=run.run_id or False,
            output_uri=True,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict(_CAPTURED),
        )
        task.set_initial_iteration(0)  # iterations of a task that goes on are not counted from its last one
        return task


def _place(name: str) -> tuple[str, str]:
    """Plot and line of a figure."""
    group, _, rest = name.partition("/")
    if rest:
        return group, rest
    return ("loss", name) if name.startswith("loss") else (name, name)


def _as_parameter(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
