"""One run a folder."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("maskrcnn_benchmark.checkpoint")

LOCK_FILE = ".run.lock"
_HELD = (errno.EACCES, errno.EAGAIN)


class FolderLock:
    """Holds a folder for this process until ``close``, or until the process ends, however it ends.

    A POSIX record lock: the kernel takes it back from a dead process, forked children do not inherit it, and over NFS
    it holds between machines (there the server takes back those of a dead machine when its lease or its next start
    says so). The file stays behind, unlocked. Where the file system has no locks, a warning is all.

    Args:
        folder: existing.
        patience_s: how long to wait for another process that may be ending.

    Raises:
        OSError: another process holds the folder (its number and machine are named), or it cannot be written.
    """

    def __init__(self, folder: str, *, patience_s: float = 5.0) -> None:
        self._file: TextIO | None = None
        if fcntl is None:
            return
        path = os.path.join(folder, LOCK_FILE)
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (open as long as the run)
        if not _acquire(self._file, time.monotonic() + patience_s):
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self.close()
            raise OSError(
                f"another run writes to {folder!r} ({holder}); end it, or choose another OUTPUT_DIR for this one"
            )
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def close(self) -> None:
        """Let the folder go."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _acquire(file: TextIO, deadline: float) -> bool:
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _HELD:
                logger.warning("%s cannot be locked (%s): see to it that one run writes there", file.name, error)
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
