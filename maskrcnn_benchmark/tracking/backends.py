"""Trackers by the names of TRACKING.BACKENDS."""

from __future__ import annotations

import importlib

from maskrcnn_benchmark.tracking.tracker import Tracker

# name -> (module and class, extra of pyproject.toml)
_TRACKERS = {
    "mlflow": ("mlflow_tracker", "MlflowTracker", "mlflow-skinny"),
    "clearml": ("clearml_tracker", "ClearmlTracker", "clearml"),
    "neptune": ("neptune_tracker", "NeptuneTracker", "neptune"),
    "wandb": ("wandb_tracker", "WandbTracker", "wandb"),
}
TRACKERS = tuple(_TRACKERS)


def make_tracker(name: str) -> Tracker:
    """A tracker with its package imported; it has no run yet.

    Raises:
        ImportError: its package is not installed; the extra is named.
    """
    module, kind, package = _TRACKERS[name]
    try:
        return getattr(importlib.import_module(f"maskrcnn_benchmark.tracking.{module}"), kind)()
    except ImportError as error:
        raise ImportError(
            f"TRACKING.BACKENDS has {name}, which needs the package {package} ({error}); "
            f"install it with pip install 'maskrcnn_benchmark[{name}]', or take {name} out"
        ) from error
