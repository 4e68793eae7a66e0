"""The options of tools/report.py."""

from __future__ import annotations

import argparse

REPORT_FILE = "report.html"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write what a run did, and what came of it, as one HTML file")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="folder of a run of train_net.py or test_net.py")
    parser.add_argument("--out", metavar="FILE", help=f"the file to write (default: OUTPUT_DIR/{REPORT_FILE})")
    parser.add_argument(
        "--no-data", action="store_true", help="leave out what needs the data sets: pictures, statistics"
    )
    return parser
