"""Config files that are based on others: _BASE_."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg as global_cfg


@pytest.fixture
def cfg():
    return global_cfg.clone()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_file_wins_over_its_base_and_that_over_its_own(cfg, tmp_path, monkeypatch):
    write(tmp_path / "bases" / "far.yaml", "SOLVER: {MAX_ITER: 1, BASE_LR: 0.5, GAMMA: 0.25}\n")
    write(tmp_path / "bases" / "near.yaml", "_BASE_: far.yaml\nSOLVER: {MAX_ITER: 2, BASE_LR: 0.125}\n")
    mine = write(tmp_path / "mine" / "mine.yaml", "_BASE_: bases/near.yaml\nSOLVER: {MAX_ITER: 3}\n")
    monkeypatch.chdir(tmp_path)  # the base is neither beside the file nor absolute
    cfg.merge_from_file(mine)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (3, 0.125, 0.25)


def test_a_base_beside_the_file_goes_before_one_in_the_working_folder(cfg, tmp_path, monkeypatch):
    write(tmp_path / "base.yaml", "SOLVER: {MAX_ITER: 1}\n")
    write(tmp_path / "mine" / "base.yaml", "SOLVER: {MAX_ITER: 2}\n")
    mine = write(tmp_path / "mine" / "mine.yaml", "_BASE_: base.yaml\n")
    monkeypatch.chdir(tmp_path)
    cfg.merge_from_file(mine)
    assert cfg.SOLVER.MAX_ITER == 2


def test_where_values_come_from(cfg, tmp_path):
    write(tmp_path / "base.yaml", "SOLVER: {MAX_ITER: 1, BASE_LR: 0.5}\n")
    mine = write(tmp_path / "mine.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 3}\n")
    cfg.merge_from_file(mine)
    cfg.merge_from_list(["SOLVER.GAMMA", 0.3])
    for tree in (cfg, cfg.clone(), pickle.loads(pickle.dumps(cfg))):
        assert tree.source_of("SOLVER.MAX_ITER") == f"config file {mine}"
        assert tree.source_of("SOLVER.GAMMA") == "the overrides"
        assert tree.source_of("SOLVER.BASE_LR") is None
        assert tree.source_of("SOLVER.MOMENTUM") is None
    assert global_cfg.source_of("SOLVER.GAMMA") is None
    assert "_BASE_" not in cfg.dump()
    assert "__sources__" not in cfg.dump()


@pytest.mark.parametrize(
    ("base", "mine", "message"),
    [
        (
            "",
            "_BASE_: nowhere.yaml\n",
            r"mine.yaml: _BASE_ nowhere.yaml does not exist, neither beside this file nor in",
        ),
        ("_BASE_: mine.yaml\n", "_BASE_: base.yaml\n", r"mine.yaml: _BASE_ leads back to"),
        ("SOLVER: {MAX_ITER: many}\n", "_BASE_: base.yaml\n", r"config file .*base.yaml: SOLVER.MAX_ITER must be"),
        ("SOLVER: {MAX_ITER: 7}\n", "_BASE_: base.yaml\nSOLVER: {MAX_ITR: 8}\n", r"mine.yaml: there is no config key"),
    ],
)
def test_a_fault_names_its_file_and_changes_nothing(cfg, tmp_path, base, mine, message):
    write(tmp_path / "base.yaml", base)
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        cfg.merge_from_file(write(tmp_path / "mine.yaml", mine))
    assert cfg == global_cfg
