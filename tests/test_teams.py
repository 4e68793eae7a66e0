"""docs/teams.md names every capability with its place and test; abstractions.md and troubleshooting.md are true."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TEXT = (REPOSITORY / "docs" / "teams.md").read_text(encoding="utf-8")
TABLES = {"A": 25, "B": 17, "C": 22, "D": 20, "E": 13}
DOCUMENTS = (
    "ABSTRACTIONS.md", "MODEL_ZOO.md", "TROUBLESHOOTING.md", "INSTALL.md", "data/README.md", "demo", "notebooks",
    "tools/cityscapes", "tests", "configs",
)  # fmt: skip
STATES = ("there", "in part", "not there yet", "process", "document", "not taken over")


def rows():
    """The rows of all tables by their first cell; each as (capability, state, place, test)."""
    found = {}
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if len(cells) == 5 and cells[0] not in ("#", "---"):
            assert cells[0] not in found, f"{cells[0]} stands there twice"
            found[cells[0]] = tuple(cells[1:])
    return found


ROWS = rows()


def named_tests(text):
    return re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", text)


def test_no_capability_is_left_out():
    wanted = {f"{letter}{number}" for letter, count in TABLES.items() for number in range(1, count + 1)}
    wanted |= {"B.7 test_fp16.sh", "B.7 test_fp32.sh", *(f"B.8 {name}" for name in DOCUMENTS)}
    assert wanted == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_true(name):
    """Its state is one of the words; what it names is there; what is there has a test, and what is not has none."""
    capability, state, place, test = ROWS[name]
    assert capability
    assert state in STATES
    for path in re.findall(r"`([\w./-]+)`", place):
        assert (REPOSITORY / path).exists(), f"{path} does not exist"
    for file, function in named_tests(test):
        tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in names, f"{file} has no {function}"
    assert bool(named_tests(test)) == (state in ("there", "in part", "document"))
    if state in ("there", "in part", "document"):
        assert re.search(r"`[\w./-]+`", place), "where?"
    if state in ("in part", "not there yet", "not taken over"):
        assert len(place) > 20, "it says what is missing, or why"


def test_published_places_that_moved_are_named():
    """Each row of the second kind of table: a path of a team's documents, and ours, which exists."""
    section = TEXT.split("## Published places")[1].split("\n## ")[0]
    moved = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert len(moved) > 10
    for published, ours in moved:
        for path in re.findall(r"`([\w./-]+)`", ours):
            assert (REPOSITORY / path).exists(), f"{published.strip()}: {path} does not exist"


def test_abstractions_are_as_the_page_says():
    text = (REPOSITORY / "docs" / "abstractions.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```pycon\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 4
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for index, block in enumerate(blocks):
        names = {} if index == 0 else names  # noqa: F821 - the blocks are one session
        example = parser.get_doctest(block, names, f"abstractions.md, block {index + 1}", None, 0)
        runner.run(example, clear_globs=False)
        names = example.globs
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 20


def test_troubleshooting_quotes_what_the_program_says():
    """The first cell of each row, where it is code, is part of a message in the sources, or of a system's program."""
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    folders = ("maskrcnn_benchmark", "scripts")
    files = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".sh")]
    sources = "".join(path.read_text(encoding="utf-8") for path in [*files, REPOSITORY / "setup.py"])
    others = {"libGL.so.1: cannot open shared object file", "$'\\r': command not found"}
    quoted = re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE)
    assert len(quoted) > 15
    assert [each for each in quoted if each not in sources and each not in others] == []
