"""One jail for all tests of this folder: to start one takes longer than to use a hundred files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.jail import Jail

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A process that may write below its folder only."""
    jail = Jail(tmp_path_factory.mktemp("jail"))
    yield jail
    jail.close()


@pytest.fixture
def cell(jail: Jail) -> Path:
    """A folder of one test, inside the jail's."""
    folder = jail.folder / f"cell_{next(_NUMBERS)}"
    folder.mkdir()
    return folder
