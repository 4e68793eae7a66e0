"""What a user sees when something that only the user can mend goes wrong, and what other failures leave behind.

docs/deployment.md lists the exit statuses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from maskrcnn_benchmark.apps.launcher import is_first_to_say, show_crashes, tell_launcher
from maskrcnn_benchmark.engine.failures import explain
from maskrcnn_benchmark.utils import comm, exit_status

logger = logging.getLogger("maskrcnn_benchmark")

DEBUG_VARIABLE = "MASKRCNN_DEBUG"
# What the package raises for a user's mistake. Anything else is our own fault and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError, FloatingPointError, MemoryError)
_LONGEST_SENTENCE = 1500  # characters
_PAUSE = 3.0  # seconds in which the process that failed, and the launcher, have the word


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """End a program on a user's mistake with ``error: ...`` on stderr and exit status 2; also a decorator.

    The traceback goes to log.txt; with MASKRCNN_DEBUG=1 the exception itself is let through. Ctrl-C ends with 130. Of
    several processes one says what all of them have to say, and one whose connection to another is lost says so in one
    line, after the other.
    """
    show_crashes()
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from the last checkpoint\n")
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        if comm.is_lost_connection(error):
            _leave_after_another(error)
        sentence = explain(error) or (describe(error) if isinstance(error, USER_ERRORS) else "")
        if not sentence:
            tell_launcher(traceback.format_exc())
            raise
        _leave_with(sentence, error)


def _leave_with(sentence: str, error: Exception) -> NoReturn:
    logger.debug("traceback of the error", exc_info=error)
    tell_launcher(sentence)
    if is_first_to_say(sentence):
        where = f" (process {comm.get_rank()})" if comm.get_world_size() > 1 else ""
        sys.stderr.write(f"error{where}: {sentence}\n")
    raise SystemExit(exit_status.MISTAKE) from error


def _leave_after_another(error: Exception) -> NoReturn:
    logger.debug("traceback of the lost connection", exc_info=error)
    time.sleep(_PAUSE)
    rank = os.environ.get("RANK", comm.get_rank())
    sys.stderr.write(f"process {rank}: another process of the run has gone ({describe(error)}), so this one ends\n")
    raise SystemExit(exit_status.LOST) from error


def describe(error: BaseException) -> str:
    """The message of an exception on one line, without the traceback that a loader's worker packs into it.

    What a file put into it cannot steer a terminal, and is cut where it has no end.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    marker = f"\n{type(error).__name__}: "
    if "DataLoader worker" in text and marker in text:
        text = text.rpartition(marker)[2]
    text = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
    return _shortened(text) or type(error).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SENTENCE else f"{text[: _LONGEST_SENTENCE - 200]} [...] {text[-180:]}"
