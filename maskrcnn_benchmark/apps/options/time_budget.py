"""The options of tools/time_budget.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A budget of time on one GPU in terms of another, and the iterations that fit into it"
    )
    parser.add_argument(
        "--reference-hours", type=float, default=36.0, metavar="H", help="of the budget (default: %(default)s)"
    )
    parser.add_argument("--reference-epoch-seconds", type=float, metavar="S", help="of an epoch there")
    parser.add_argument("--local-epoch-seconds", type=float, metavar="S", help="of the same epoch here")
    parser.add_argument("--seconds-per-iteration", type=float, metavar="S", help="measured here")
    parser.add_argument("--run", default="", metavar="FOLDER", help="of a run with SOLVER.MAX_TIME, which measured it")
    parser.add_argument(
        "--other-minutes", type=float, default=0.0, metavar="M", help="for data, checkpoints and evaluation"
    )
    return parser
