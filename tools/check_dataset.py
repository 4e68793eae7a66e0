"""Check data sets before a run: python tools/check_dataset.py --help"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maskrcnn_benchmark.apps.options.check_dataset import make_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = make_parser().parse_args(arguments)
    from maskrcnn_benchmark.apps import check_dataset  # here: --help needs no torch
    from maskrcnn_benchmark.config import cfg

    return check_dataset.main(args, cfg)


if __name__ == "__main__":
    sys.exit(main())
