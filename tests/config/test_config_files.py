"""Every published config file loads to exactly the published values (data/config_files.json, copied facts)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from maskrcnn_benchmark.config import cfg, validate

HERE = Path(__file__).parent
CONFIGS = HERE.parent.parent / "configs"
PUBLISHED = json.loads((HERE / "data" / "config_files.json").read_text(encoding="utf-8"))
ALIAS = ("MODEL.BACKBONE.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS")


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def test_the_number_of_published_files():
    assert len(PUBLISHED) == 43


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_values(name):
    loaded = cfg.clone()
    loaded.merge_from_file(str(CONFIGS / name))
    defaults = dict(flat(cfg))
    expected = {key: as_tuples(value) for key, value in PUBLISHED[name].items()}
    for first, second in (ALIAS, ALIAS[::-1]):
        if first in expected:
            expected[second] = expected[first]
    assert dict(flat(loaded)) == {**defaults, **expected}
    # The file itself sets the published keys and no others.
    assert set(dict(flat(yaml.safe_load((CONFIGS / name).read_text())))) == set(PUBLISHED[name])


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_opens_with_its_command_and_is_sound(path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert str(path.relative_to(CONFIGS.parent)) in " ".join(head)
    loaded = cfg.clone()
    loaded.merge_from_file(path)
    loaded.merge_from_list(["MODEL.DEVICE", "cpu"])
    if "C4" in loaded.MODEL.BACKBONE.CONV_BODY:
        with pytest.raises(ValueError, match=r"MODEL.BACKBONE.CONV_BODY is 'R-50-C4', but .* is not available"):
            validate(loaded)
    else:
        validate(loaded)
