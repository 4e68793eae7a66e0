"""Check data sets before a run: python tools/check_dataset.py --help"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maskrcnn_benchmark.apps import check_dataset
from maskrcnn_benchmark.config import cfg


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    return check_dataset.main(check_dataset.make_parser().parse_args(arguments), cfg)


if __name__ == "__main__":
    sys.exit(main())
