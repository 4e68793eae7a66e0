"""Small things of the file system."""

from __future__ import annotations

import os


def mkdir(path: str) -> None:
    """Make a folder and its parents; an existing one is fine. OSError names the path that could not be made."""
    os.makedirs(path, exist_ok=True)
