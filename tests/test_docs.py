"""What the documents say can be done: their links, paths, commands and settings exist."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.catalog import custom_entries

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [each for each in targets if "://" not in each and not (path.parent / each).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_name_files_that_exist(path):
    for block in blocks(path, "bash"):
        if shutil.which("bash"):
            subprocess.run(["bash", "-n"], input=block, text=True, check=True)
        named = re.findall(r"(?<![\w/])(?:scripts|tools|configs|benchmarks|tests)/[\w./-]+\w|download_\w+\.sh", block)
        assert [each for each in named if not (REPOSITORY / each).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_settings_in_commands_are_accepted(path):
    for block in blocks(path, "bash"):
        words = shlex.split(block, comments=True)
        for key, value in itertools.pairwise(words):
            if re.fullmatch(r"[A-Z]+(\.[A-Z_]+)+", key):
                config = cfg.clone()
                config.merge_from_list([key, value])
                custom_entries(config)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_is_python(path):
    for block in blocks(path, "python"):
        ast.parse(block)


def test_every_difference_names_a_test_that_exists():
    text = (REPOSITORY / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| behaviour", "| ---"))
    ]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", row)
        assert named, f"no test in the row {row}"
        for file, name in named:
            assert re.search(rf"def {name}\(", (REPOSITORY / file).read_text(encoding="utf-8")), f"{file} has no {name}"
