"""The flags by which `benchmarks/run.py` calls the file of an area."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

NO_PEERS = "none"


def add_suite_options(parser: argparse.ArgumentParser, *, device: bool = False) -> None:
    """Adds --time-limit, --out, --quick, --peer, --peers, and --device where the area runs on a GPU too."""
    add = parser.add_argument
    add("--time-limit", type=float, metavar="S", help="begin nothing that does not end within these seconds")
    add("--out", metavar="FILE", help="write the rows in the suite's form to this JSON file")
    add("--quick", action="store_true", help="a tiny form, to see whether everything runs")
    add("--peer", action="append", default=[], metavar="NAME=PATH", help="where a peer's checkout lies; repeatable")
    add("--peers", metavar="LIST", help="only these peers, or none; by default all that can be imported")
    if device:
        add("--device", choices=("cpu", "cuda"), default="cpu")


def peer_paths(entries: Sequence[str]) -> dict[str, str]:
    """The checkouts of --peer, name to path.

    Raises:
        ValueError: for an entry without a name or a path.
    """
    paths = {}
    for entry in entries:
        name, separator, path = entry.partition("=")
        if not (name and separator and path):
            raise ValueError(f"--peer {entry} is not NAME=PATH, such as detectron2=/src/detectron2")
        paths[name] = path
    return paths


def wanted_peers(text: str | None) -> list[str] | None:
    """The names in --peers: None for all that there are, an empty list for none."""
    if text is None:
        return None
    return [name for name in (word.strip() for word in text.split(",")) if name and name != NO_PEERS]
