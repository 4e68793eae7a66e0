"""The compiled kernels on a machine on which nobody installed the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def build_kernels(root: Path) -> None:
    """Compile the kernels where there are none; without them, or without a compiler, PyTorch's own do the work.

    Nothing happens with SKIP_SETUP=1, nor in one of several processes, which would all compile.

    Args:
        root: the repository.
    """
    package = root / "maskrcnn_benchmark"
    if os.environ.get("SKIP_SETUP") == "1" or int(os.environ.get("WORLD_SIZE", "1")) > 1 or any(package.glob("_C.*")):
        return
    sys.stderr.write("Compiling the kernels, once, in a few minutes ...\n")
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = lines[-1] if lines else f"status {done.returncode}"
        sys.stderr.write(f"The kernels cannot be compiled ({reason}); PyTorch's own do the work\n")
