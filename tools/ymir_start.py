"""Do the job of the YMIR platform. Example: YMIR_ENV_FILE=in/env.yaml python tools/ymir_start.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # live code is not installed

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.ymir.start import main

if __name__ == "__main__":
    sys.exit(main(cfg))
