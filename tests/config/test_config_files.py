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
# Of two published files of one name NVIDIA's values hold, but for this key of its group-norm files: the published
# R-50-GN weights, and networks trained from them, were made with the original's value.
EXCEPTIONS = {name: {"MODEL.RESNETS.STRIDE_IN_1X1": False} for name in PUBLISHED if name.startswith("gn_baselines/")}
ALIAS = ("MODEL.BACKBONE.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS")


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def expected_values(name):
    return {**PUBLISHED[name], **EXCEPTIONS.get(name, {})}


def test_all_published_names_are_there():
    own = {
        "demo/mask_rcnn_R_18_FPN_shapes.yaml",
        "parking_2022.yaml",
        "penn_fudan/mask_rcnn_R_18_FPN_penn_fudan.yaml",
    }
    assert len(PUBLISHED) == 71
    assert {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")} == {*PUBLISHED, *own}


def test_the_exceptions_change_what_was_published():
    assert len(EXCEPTIONS) == 8
    for name, values in EXCEPTIONS.items():
        assert not set(values) & set(PUBLISHED[name])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_values(name):
    loaded = cfg.clone()
    loaded.merge_from_file(str(CONFIGS / name))
    defaults = dict(flat(cfg))
    expected = {key: as_tuples(value) for key, value in expected_values(name).items()}
    for first, second in (ALIAS, ALIAS[::-1]):
        if first in expected:
            expected[second] = expected[first]
    assert dict(flat(loaded)) == {**defaults, **expected}
    # The file itself sets the published keys and no others.
    assert set(dict(flat(yaml.safe_load((CONFIGS / name).read_text())))) == set(expected_values(name))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_opens_with_its_command_and_is_sound(path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert str(path.relative_to(CONFIGS.parent)) in " ".join(head)
    loaded = cfg.clone()
    loaded.merge_from_file(path)
    loaded.merge_from_list(["MODEL.DEVICE", "cpu"])
    validate(loaded)
