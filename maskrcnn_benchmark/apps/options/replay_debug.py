"""The options of tools/replay_debug.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the failed iteration of a debug bundle again")
    parser.add_argument("bundle", help="a folder OUTPUT_DIR/debug/iteration_NNNNNNN")
    parser.add_argument("--device", default="", help="cpu or cuda; the run's, where it is there")
    parser.add_argument("--dtype", default="", help="replaces DTYPE: float32 tells whether half precision is the cause")
    return parser
