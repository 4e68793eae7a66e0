"""What users rely on, held as lists beside this file: imports, flags, config keys.

The list of names in checkpoints is compared in tests/modeling/test_all_configs.py, which builds every network.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent

PUBLIC_NAMES = [
    tuple(line.split(maxsplit=1))
    for line in (HERE / "public_names.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
CLI_FLAGS = json.loads((HERE / "cli_flags.json").read_text(encoding="utf-8"))
CONFIG_KEYS = json.loads((HERE / "config_keys.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("module", "entry"), PUBLIC_NAMES)
def test_public_name(module, entry):
    name, published = re.fullmatch(r"([\w.]+)(?:\((.*)\))?", entry).groups()
    found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    if published:
        positional = [
            parameter.name
            for parameter in inspect.signature(found).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        expected = published.split(", ")
        assert [each for each in positional if each != "self"][: len(expected)] == expected


@pytest.mark.parametrize("tool", sorted(CLI_FLAGS))
def test_flags(tool):
    spec = importlib.util.spec_from_file_location(Path(tool).stem, REPOSITORY / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = {flag for action in module.make_parser()._actions for flag in action.option_strings}
    assert set(CLI_FLAGS[tool]) <= known


def as_published(value):
    return [as_published(each) for each in value] if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("key", sorted(CONFIG_KEYS))
def test_config_key_and_default(key):
    value = functools.reduce(getattr, key.split("."), cfg)
    expected = CONFIG_KEYS[key]
    assert as_published(value) == expected
    assert type(as_published(value)) is type(expected)
