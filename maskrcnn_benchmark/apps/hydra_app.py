"""What surrounds the jobs of tools/train_hydra.py: Hydra, the keys that it knows, what a user sees of errors.

Completion in the shell starts the program at every Tab: torch is not imported before a job runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.hydra_settings import TREE, empty_tree, nearest_key

HYDRA_ERRORS_STATUS = 1
"""Hydra's own for settings that cannot be composed."""
INTERRUPTED_STATUS = 130
"""Ctrl-C, as in every shell."""
_FULL_ERROR = "HYDRA_FULL_ERROR"
_EXTRAS = {
    "hydra/sweeper/optuna": "sweeps-optuna",
    "hydra/launcher/joblib": "sweeps-launchers",
    "hydra/launcher/submitit_local": "sweeps-launchers",
    "hydra/launcher/submitit_slurm": "sweeps-launchers",
}


def import_hydra() -> Any:
    """The module hydra; without it the program ends with a sentence that says what to install."""
    try:
        import hydra
    except ImportError as error:
        sys.stderr.write(f"error: tools/train_hydra.py needs Hydra ({error}): {_install('sweeps')}\n")
        raise SystemExit(2) from error
    return hydra


def start(main: Callable[[], None], cfg: CfgNode) -> None:
    """Run the function that ``hydra.main`` decorated, as user_errors does it.

    Settings that cannot be composed end the program with Hydra's own message, the nearest key that there is, and
    status 1. With HYDRA_FULL_ERROR=1 every exception comes out whole.

    Args:
        main: the decorated function.
        cfg: the config tree with its defaults; stays as it is.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.errors import CompactHydraException

    ConfigStore.instance().store(group=TREE, name="keys", node=empty_tree(cfg))
    if os.environ.get(_FULL_ERROR) == "1":
        main()
        return
    os.environ[_FULL_ERROR] = "1"  # errors then arrive here
    try:
        main()
    except CompactHydraException as error:
        sys.stderr.write(f"{error}\n{_further(error, cfg)}")
        raise SystemExit(HYDRA_ERRORS_STATUS) from error
    except KeyboardInterrupt:  # the job has said how it goes on
        raise SystemExit(INTERRUPTED_STATUS) from None
    except Exception:
        from maskrcnn_benchmark.apps.errors import user_errors

        with user_errors():
            raise


def _further(error: Exception, cfg: CfgNode) -> str:
    """What Hydra does not say: its cause, the key that was meant, the package that is missing; a line each."""
    text = str(error)
    lines = [str(error.__cause__).partition("\n")[0]] if error.__cause__ else []
    typed = re.search(r"Could not override '([^'@]+)", text)
    if typed and (near := nearest_key(typed[1], cfg)):
        lines = [f"Did you mean {near}?"]
    lines += [_install(extra) for name, extra in _EXTRAS.items() if f"'{name}'" in text]
    return "".join(f"{line}\n" for line in lines)


def _install(extra: str) -> str:
    return f"pip install 'maskrcnn_benchmark[{extra}]', or in a checkout pip install -e '.[{extra}]'"
