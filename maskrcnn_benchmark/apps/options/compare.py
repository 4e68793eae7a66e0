"""The options of tools/compare.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Set runs side by side in one HTML file")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, two or more")
    parser.add_argument("--out", default="comparison.html", metavar="FILE", help="file to write (default: %(default)s)")
    return parser
