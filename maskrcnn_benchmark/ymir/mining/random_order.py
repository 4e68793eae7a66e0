"""Mining by chance: the measure for every other algorithm."""

from __future__ import annotations

import hashlib

_NAME = b"maskrcnn_benchmark mining"


def path_key(path: str) -> int:
    """64 bits that depend on the path of a picture alone: the key of everything random about it."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8, key=_NAME).digest()
    return int.from_bytes(digest, "big")


def random_score(path: str) -> float:
    """A uniform number in [0, 1), the same in every run, process and order of the candidates."""
    return (path_key(path) >> 11) * 2.0**-53
