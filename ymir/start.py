"""What YMIR starts in a clone of this repository (live code): tools/ymir_start.py, which then fetches no code."""

import os
import runpy
from pathlib import Path

if __name__ == "__main__":
    os.environ["MASKRCNN_YMIR_LIVE"] = "1"
    runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools" / "ymir_start.py"), run_name="__main__")
