"""The environment of what a job starts."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

# Libraries write into these; the home folder of the platform's user may be missing or of somebody else.
_FOLDERS = {
    "HOME": "home",
    "XDG_CACHE_HOME": "xdg",
    "TORCH_HOME": "torch",
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
}


def worker_variables(environment: Mapping[str, str], work_dir: str, root: Path) -> dict[str, str]:
    """Environment variables of a process: caches go where this user can write, the code is found without installing.

    Args:
        environment: of this process; folders in it that can be written stay.
        work_dir: folder for the caches.
        root: folder of the code.
    """
    variables = dict(environment)
    for name, folder in _FOLDERS.items():
        if not os.access(variables.get(name, ""), os.W_OK):
            variables[name] = os.path.join(work_dir, folder)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        variables["USER"] = variables["LOGNAME"] = "ymir"
    paths = filter(None, (str(root), variables.get("PYTHONPATH")))
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    return variables
