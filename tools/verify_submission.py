"""Check what is handed in to a competition before it is: python tools/verify_submission.py. docs/competition.md"""

import sys
from pathlib import Path

from maskrcnn_benchmark.apps.options.verify_submission import make_parser

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    args = make_parser(ROOT).parse_args()
    from maskrcnn_benchmark.apps.competition.verify import main  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    sys.exit(main(args, cfg))
