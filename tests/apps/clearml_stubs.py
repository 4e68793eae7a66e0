"""What stands for ClearML's programs and server in tests."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Writes its words down; with STUB_RUNS set it then does what an agent does with them, with options for the values
# that the SDK would put into argparse.
CLEARML_TASK = """#!{python}
import json, os, subprocess, sys
words = sys.argv[1:]
with open(os.environ["STUB_LOG"], "w") as file:
    json.dump(words, file)
pairs = words[words.index("--args") + 1:]
for pair in pairs:
    assert "=" in pair, "arguments must be in '<key>=<value>' format: " + pair
if os.environ.get("STUB_RUNS"):
    script = words[words.index("--script") + 1]
    options = ["--%s=%s" % tuple(pair.split("=", 1)) for pair in pairs]
    sys.exit(subprocess.run([sys.executable, "-u", script, *options]).returncode)
"""


def make_program(folder: Path, name: str, text: str) -> Path:
    """An executable file; ``{python}`` in it stands for this interpreter."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text.replace("{python}", sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make_clone(folder: Path) -> Path:
    """What an agent has of the repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("maskrcnn_benchmark", "tools", "scripts", "configs", "example"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    return folder


def make_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a process with the stubs in front, and a home without ClearML's settings."""
    left_out = ("CLEARML_", "TRAINS_", "MASKRCNN_STATUS", "PET_", "DATA_DIR", "PYTHONPATH", "TORCHELASTIC_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    own |= {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "STUB_LOG": str(folder / "words.json"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return own | more
