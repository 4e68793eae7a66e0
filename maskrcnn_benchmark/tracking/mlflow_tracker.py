"""Figures to MLflow, by files or a server."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Mapping
from pathlib import Path

from maskrcnn_benchmark.tracking.tracker import TrackedRun

FOLDER = "mlruns"
_MOST_PARAMETERS = 100  # MLflow's limit for one request
_LONGEST_VALUE = 6000  # MLflow's limit for a parameter
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """One MLflow run: in the store that MLFLOW_TRACKING_URI names, else in files below ./mlruns.

    MLflow's experiment is TRACKING.EXPERIMENT, or TRACKING.PROJECT where that is empty. The settings are parameters.
    """

    name = "mlflow"

    def __init__(self) -> None:
        import mlflow

        self.package = mlflow
        # MLflow's own defaults try for many minutes, in which other figures pile up.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        self.last_iteration = 0

    def start(self, run: TrackedRun) -> str:
        """Begin a run, or go on with one that the store still has."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = (Path.cwd() / FOLDER).as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # without it MLflow 3 refuses files
        self.client = self.package.MlflowClient(tracking_uri=uri)
        known = self._find(run.run_id)
        if known is not None:
            self.run_id, parameters = known.info.run_id, set(known.data.params)
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            experiment = self._experiment(run.project if not run.experiment else run.experiment)
            tags = dict.fromkeys(run.tags, "true")
            self.run_id = self.client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
            parameters = set()
        self._add_parameters({key: value for key, value in run.settings.items() if key not in parameters})
        return self.run_id

    def metrics(self, values: Mapping[str, float], iteration: int | None) -> None:
        """All of them in one request; those of the whole run at the last iteration."""
        self.last_iteration = self.last_iteration if iteration is None else iteration
        now, entity = int(time.time() * 1000), self.package.entities.Metric
        metrics = [entity(name, value, now, self.last_iteration) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def figure(self, name: str, path: str, iteration: int) -> None:
        """Among the artifacts, below figures/."""
        self.client.log_artifact(self.run_id, path, posixpath.join("figures", posixpath.dirname(name)).rstrip("/"))

    def artifact(self, name: str, path: str) -> None:
        """Under the file's own name; where its name has groups, in folders of these."""
        self.client.log_artifact(self.run_id, path, posixpath.dirname(name) or None)

    def finish(self, status: str) -> None:
        """MLflow calls an interrupted run killed."""
        self.client.set_terminated(self.run_id, _STATUS[status])

    def _find(self, run_id: str | None) -> object | None:
        """A run that can go on; None where the store has none of that id, or only among the deleted ones."""
        if run_id is None:
            return None
        try:
            found = self.client.get_run(run_id)
        except self.package.exceptions.MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which is made where it does not exist."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name)
            except self.package.exceptions.MlflowException:
                found = self.client.get_experiment_by_name(name)  # another run of a sweep has just made it
                if found is None:
                    raise
        return found.experiment_id

    def _add_parameters(self, settings: Mapping[str, object]) -> None:
        entity = self.package.entities.Param
        parameters = [entity(key, str(value)[:_LONGEST_VALUE]) for key, value in settings.items()]
        for first in range(0, len(parameters), _MOST_PARAMETERS):
            self.client.log_batch(self.run_id, params=parameters[first : first + _MOST_PARAMETERS])
