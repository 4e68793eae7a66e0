"""Say where two training runs part, and why: python tools/compare_runs.py OUTPUT_DIR_A OUTPUT_DIR_B"""

import sys

from maskrcnn_benchmark.apps.options.compare_runs import make_parser

if __name__ == "__main__":
    args = make_parser().parse_args()
    from maskrcnn_benchmark.apps.compare_runs import main  # here: --help needs no torch

    sys.exit(main(args))
