"""What one of several processes tells its launcher, torchrun, and its siblings when it fails."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import time
from pathlib import Path

# torchrun gives each process a file of its own: <folder of the attempt>/<local rank>/error.json. It takes the process
# whose file has the earliest time for the cause, and shows its message at the end of its own report.
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


def show_crashes() -> None:
    """Print the Python stack of a process that dies of SIGSEGV, SIGBUS, SIGFPE or SIGABRT."""
    if not faulthandler.is_enabled():
        faulthandler.enable()


def is_first_to_say(sentence: str) -> bool:
    """Whether no other process of this attempt on this machine has said the same; always, without torchrun."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return True
    digest = hashlib.blake2b(sentence.encode(), digest_size=8).hexdigest()
    try:
        with open(Path(path).parent.parent / f"said-{digest}", "x"):
            return True
    except FileExistsError:
        return False
    except OSError:
        return True


def tell_launcher(message: str) -> None:
    """Leave a message for torchrun's report, which it shows under this process's rank."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    now = int(time.time())
    content = {"message": {"message": message, "extraInfo": {"py_callstack": message, "timestamp": str(now)}}}
    try:
        Path(path).write_text(json.dumps(content), encoding="utf-8")
    except OSError:  # the launcher has gone too, or its disk is full; stderr has the message
        return
