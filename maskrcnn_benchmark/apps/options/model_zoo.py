"""The options of tools/model_zoo.py."""

from __future__ import annotations

import argparse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the table of published configs into a page, or print one row")
    parser.add_argument("--configs", default="configs", metavar="FOLDER", help="of the config files")
    parser.add_argument("--only", metavar="FILE", help="print the row of this config, relative to the folder")
    parser.add_argument("--page", default="docs/model_zoo.md", metavar="FILE", help="whose table is replaced")
    return parser
