"""A user's own code that runs before anything else."""

from __future__ import annotations

import os

from maskrcnn_benchmark.utils.imports import import_file

ENV_MODULE = "TORCH_DETECTRON_ENV_MODULE"


def setup_environment() -> None:
    """Run ``setup_environment()`` of the Python file that the variable TORCH_DETECTRON_ENV_MODULE names, if it is set.

    The applications call this at their start; importing the package never does.

    Raises:
        ValueError: the file has no function of that name.
    """
    path = os.environ.get(ENV_MODULE)
    if not path:
        return
    module = import_file("maskrcnn_benchmark.utils.env.env_module", path)
    if not callable(getattr(module, "setup_environment", None)):
        raise ValueError(f"{path}, named by {ENV_MODULE}, must define a function setup_environment()")
    module.setup_environment()
