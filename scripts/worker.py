"""Runs a tool as one of torchrun's processes, and writes down how it failed: torchrun ends with 1 whatever the reason.

python scripts/worker.py TOOL ARGUMENT...      MASKRCNN_STATUS_FILE names the file, in a folder of this node alone
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys

STATUS_FILE = "MASKRCNN_STATUS_FILE"
_USER_MISTAKE = 2  # the status of a wrong flag, key or file


def mistake_before(path: str) -> bool:
    """Whether this is a restart after a mistake of the user, which no restart mends: it need not be made again."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return False
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        return file.read() == str(_USER_MISTAKE)
    return False


def main(tool: str) -> None:
    """Run the tool as if it had been started itself; the first process of this node that fails says why it did."""
    path = os.environ.get(STATUS_FILE, "")
    if path and mistake_before(path):
        sys.exit(_USER_MISTAKE)
    if path and os.environ.get("LOCAL_RANK") == "0":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of an attempt before this one
    status = 1
    try:
        runpy.run_path(tool, run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        if path and status:
            with contextlib.suppress(OSError), open(path, "x", encoding="utf-8") as file:
                file.write(str(status))


if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    main(sys.argv[0])
