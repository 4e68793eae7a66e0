"""Each promise of docs/reproducibility.md and docs/deployment.md names the test that holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [page for page in ("reproducibility.md", "deployment.md") if (REPOSITORY / "docs" / page).exists()]
NAMED_TEST = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")


def promises(text: str) -> list[str]:
    """The rows of the tables whose head begins with the word promise."""
    rows, inside = [], False
    for line in text.splitlines():
        if line.startswith("| promise"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page):
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    for file, name in NAMED_TEST.findall(text):
        path = REPOSITORY / file
        assert path.exists(), f"{page} names {file}"
        assert re.search(rf"def {name}\(", path.read_text(encoding="utf-8")), f"{page}: {file} has no {name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_a_test(page):
    for row in promises((REPOSITORY / "docs" / page).read_text(encoding="utf-8")):
        assert NAMED_TEST.search(row), f"{page}: no test in the row {row}"


def test_there_are_promises():
    assert len(promises((REPOSITORY / "docs" / "reproducibility.md").read_text(encoding="utf-8"))) > 20


def test_a_promise_without_a_test_is_found():
    table = (
        "| promise | test |\n| --- | --- |\n| it flies | |\n| it swims | `tests/test_docs.py::test_x` |\n\n| other |\n"
    )
    rows = promises(table)
    assert [bool(NAMED_TEST.search(row)) for row in rows] == [False, True]
