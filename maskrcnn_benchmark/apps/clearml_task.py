"""The ClearML task of a launcher: found or begun, and what it wants changed."""

from __future__ import annotations

import logging
import types
from typing import Any

from maskrcnn_benchmark.apps.errors import describe
from maskrcnn_benchmark.tracking.secrets import hide_secrets
from maskrcnn_benchmark.utils import exit_status

logger = logging.getLogger("maskrcnn_benchmark")

SECTION = "Overrides"
"""Of the hyperparameters: config keys and values that win over everything else."""
STOPPED = (exit_status.STOPPED, 130)
"""Exit statuses of a training that was told to stop, the second by Ctrl-C."""


def import_clearml() -> types.ModuleType | None:
    """The package, None where it is not installed.

    Importing it makes argparse tell it of all options: it has to come before they are parsed.
    """
    try:
        import clearml
    except ImportError:
        return None
    return clearml


def find_task(clearml: types.ModuleType | None) -> Any | None:
    """The task that an agent has made of this process, if there is one."""
    return None if clearml is None else clearml.Task.current_task()


def begin_task(clearml: types.ModuleType | None, project: str, name: str) -> Any | None:
    """Begin a task where a server is configured, or CLEARML_OFFLINE_MODE=1 asks for a session on the disk.

    Returns:
        The task; None without ClearML, on which training does not depend.
    """
    if clearml is None:
        return None
    try:
        return clearml.Task.init(
            project_name=project,
            task_name=name,
            reuse_last_task_id=False,
            output_uri=True,
            auto_connect_frameworks=False,  # the training reports by itself
        )
    except Exception as error:
        if type(error).__name__ == "MissingConfigError":  # it has no public place
            logger.info("ClearML is not configured on this machine: there is no task")
        else:
            logger.warning("%s", hide_secrets(f"ClearML has no task for this run ({describe(error)})"))
        return None


def is_remote(task: Any | None) -> bool:
    """Whether an agent runs this process."""
    return task is not None and not task.running_locally()


def make_destination(task: Any) -> None:
    """Let models go to ClearML's file server where the task names no other place: else only their paths are kept."""
    try:
        task.output_uri = task.output_uri or True
    except Exception as error:
        logger.warning("%s", hide_secrets(f"The ClearML task cannot take models ({describe(error)})"))


def read_overrides(task: Any | None) -> list[str]:
    """Config keys and values in turn that somebody has written into the section ``Overrides`` of the task."""
    if task is None:
        return []
    prefix = f"{SECTION}/"
    found = {name: value for name, value in (task.get_parameters() or {}).items() if name.startswith(prefix)}
    pairs = [(name.removeprefix(prefix), str(value)) for name, value in found.items() if value not in (None, "")]
    return [word for pair in sorted(pairs) for word in pair]


def finish_task(task: Any | None, status: int) -> None:
    """Take over what the training's process has written into the task, so that closing it does not undo that.

    Args:
        task: of this process.
        status: the exit status of the training. ClearML sees by itself whether it failed, but not that it was stopped.
    """
    if task is None:
        return
    try:
        task.reload()
        if status in STOPPED and not is_remote(task):
            task.mark_stopped()
            task.close()
    except Exception as error:  # the training has ended: nothing of this may change how
        logger.warning("%s", hide_secrets(f"The ClearML task could not be closed ({describe(error)})"))
