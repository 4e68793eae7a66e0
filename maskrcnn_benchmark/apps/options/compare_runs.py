"""The options of tools/compare_runs.py."""

from __future__ import annotations

import argparse

_DESCRIPTION = """Compare two output folders of tools/train_net.py: manifest, trace, last checkpoint, evaluation.
Exit status: 0 the runs are equal bit for bit; 1 they differ; 2 they cannot be compared."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="output folder of one run")
    parser.add_argument("b", metavar="B", help="output folder of the other")
    return parser
