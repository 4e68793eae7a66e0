"""Which images of a data set are taken: those of a list, or those that a fixed rule gives to training or validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

_KEY = b"maskrcnn_benchmark train or val"


def is_validation(name: str, val_fraction: float) -> bool:
    """Whether an image is one of about ``val_fraction`` of all: by a hash of its name, so that it stays so for ever.

    Args:
        name: path of the image below its folder, with "/".
        val_fraction: between 0 and 1.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=_KEY).digest()
    return int.from_bytes(digest, "big") < val_fraction * 2**64


def listed_names(names: Sequence[str], list_file: str | Path) -> list[int]:
    """Positions of the names that a file lists, ascending.

    Args:
        names: paths of the images below their folder, with "/".
        list_file: text with one image a line, as path below the folder or as bare name, with or without suffix; as in
            Pascal VOC's lists, what follows the first blank may be something else.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it lists nothing, or an image that is not there.
    """
    try:
        lines = Path(list_file).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"list of images {list_file} does not exist") from None
    positions: dict[str, int] = {}
    for at, name in enumerate(names):
        path = Path(name)
        for key in (path.stem, path.name, path.with_suffix("").as_posix()):
            positions.setdefault(key, at)
    positions.update({name: at for at, name in enumerate(names)})
    found = []
    for line in filter(None, map(str.strip, lines)):
        keys = [line, line.split()[0]]
        keys += [Path(key).name for key in keys]
        at = next((positions[key] for key in keys if key in positions), None)
        if at is None:
            raise ValueError(
                f"list of images {list_file}: there is no image {line!r} among the {len(names)} of the folder"
            )
        found.append(at)
    if not found:
        raise ValueError(f"list of images {list_file} lists no image")
    return sorted(set(found))
