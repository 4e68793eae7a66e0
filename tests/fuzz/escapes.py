"""What no file may make this program do, done on purpose."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Callable


def _write() -> None:
    with contextlib.suppress(OSError):  # also where the error itself is swallowed
        open(os.path.expanduser("~/pwned"), "w").close()


def _named() -> None:
    raise ValueError("the sentence")


WAYS: dict[str, Callable[[], object]] = {
    "system": lambda: os.system("touch pwned"),
    "write": _write,
    "socket": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "crash": lambda: [][0],
    "fault": lambda: ctypes.string_at(0),
    "memory": lambda: bytearray(8 << 30),
    "named": _named,
    "fine": lambda: None,
}
