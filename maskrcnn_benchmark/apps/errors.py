"""What a user sees when something that only the user can mend goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from maskrcnn_benchmark.utils import comm

logger = logging.getLogger("maskrcnn_benchmark")

DEBUG_VARIABLE = "MASKRCNN_DEBUG"
EXIT_STATUS = 2
# What the package raises for a user's mistake. Anything else is our own fault and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError, FloatingPointError)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """End a program on a user's mistake with ``error: ...`` on stderr and exit status 2; also a decorator.

    The traceback goes to log.txt; with MASKRCNN_DEBUG=1 the exception itself is let through. Ctrl-C ends with 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from the last checkpoint\n")
        raise SystemExit(130) from None
    except USER_ERRORS as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        logger.debug("traceback of the error", exc_info=True)
        where = f" (process {comm.get_rank()})" if comm.get_world_size() > 1 else ""
        sys.stderr.write(f"error{where}: {describe(error)}\n")
        raise SystemExit(EXIT_STATUS) from error


def describe(error: BaseException) -> str:
    """The message of an exception on one line, without the traceback that a loader's worker packs into it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    marker = f"\n{type(error).__name__}: "
    if "DataLoader worker" in text and marker in text:
        text = text.rpartition(marker)[2]
    text = " ".join(text.split())
    return text or type(error).__name__
