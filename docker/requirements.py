"""Prints what pyproject.toml depends on, torch apart: an image installs it before the code, in a layer that stays.

python3 docker/requirements.py [EXTRA]...
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def requirements(text: str, extras: list[str]) -> list[str]:
    """The dependencies in the text of a pyproject.toml and those of ``extras``; torch is the base image's.

    Raises:
        KeyError: an extra is not in the file.
    """
    import tomllib  # of Python 3.11, which every image has; the package itself takes 3.10 too

    project = tomllib.loads(text)["project"]
    listed = list(project["dependencies"])
    for name in extras:
        listed += project["optional-dependencies"][name]
    return [each for each in listed if re.match(r"[\w.-]+", each)[0] not in ("torch", project["name"])]


if __name__ == "__main__":
    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    sys.stdout.writelines(f"{each}\n" for each in requirements(pyproject.read_text(encoding="utf-8"), sys.argv[1:]))
