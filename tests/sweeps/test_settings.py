"""The table of Hydra's keys, without Hydra: each stands for a config key that exists, and takes that key's values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import yaml

from maskrcnn_benchmark.apps import hydra_train
from maskrcnn_benchmark.apps.hydra_settings import (
    DEBUG,
    OWN_KEYS,
    TABLE,
    TREE,
    debug_batches,
    empty_tree,
    make_overrides,
    nearest_key,
)
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.validate import BACKENDS

CONF = Path(__file__).resolve().parents[2] / "conf"

# One value of each key as somebody types it, and what the config then holds.
TYPED = {
    "project_name": ("cells", "cells"),
    "experiment_name": ("first", "first"),
    "loggers": (["jsonl", "mlflow"], ("jsonl", "mlflow")),
    "data.train": (["a", "b"], ("a", "b")),
    "data.test": ("c", ("c",)),
    "data.dir": ("/data", "/data"),
    "hparams.batch_size": (8, 8),
    "hparams.optimizer": ("FusedSGD", "apex"),
    "hparams.lr": (0.25, 0.25),
    "hparams.momentum": (0, 0.0),
    "hparams.weight_decay": (1e-05, 1e-05),
    "hparams.num_workers": (3, 3),
    "hparams.seed": (7, 7),
    "trainer.max_steps": (12, 12),
    "trainer.accelerator": ("gpu", "cuda"),
    "trainer.precision": ("bf16-mixed", "bfloat16"),
    "trainer.deterministic": (True, True),
    "trainer.gradient_clip_val": (2, 2.0),
    "trainer.accumulate_grad_batches": (4, 4),
    "trainer.val_check_interval": (100, 100),
    "trainer.log_every_n_steps": (5, 5),
    "trainer.enable_checkpointing": (False, False),
    "model_checkpoint.every_n_train_steps": (50, 50),
    "model_checkpoint.save_last_k": (2, 2),
    "early_stopping.enabled": (True, True),
    "early_stopping.min_bbox_ap": (0.5, 0.5),
    "early_stopping.min_segm_ap": (0.4, 0.4),
}


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def merged(settings, folder="out"):
    config = cfg.clone()
    config.merge_from_list(make_overrides(settings, cfg, folder=folder))
    return config


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def conf_leaves():
    """Every key that the files of conf/ hold, with its value, as Hydra places them."""
    found = {}
    for path in sorted(CONF.rglob("*.yaml")):
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        tree.pop("defaults", None)
        tree.pop("hydra", None)
        is_global = path.parent == CONF or "@package _global_" in path.read_text(encoding="utf-8")
        found.update(leaves(tree, "" if is_global else f"{path.parent.name}."))
    return found


def test_each_target_is_a_config_key():
    assert {row.target for row in TABLE} <= set(cfg.keys_below())
    assert len({row.target for row in TABLE}) == len(TABLE), "two rows set one config key"
    assert set(DEBUG) <= set(cfg.keys_below())


def test_conf_and_table_have_the_same_keys():
    assert set(conf_leaves()) == {row.key for row in TABLE} | set(OWN_KEYS)


def test_conf_leaves_the_config_file_as_it_is():
    given = {key for key, value in conf_leaves().items() if value is not None and "${" not in str(value)}
    assert given - set(OWN_KEYS) == {"project_name", "experiment_name", "loggers", "trainer.accelerator",
                                     "data.train", "data.test"}  # fmt: skip
    basic = yaml.safe_load((CONF / "loggers" / "basic.yaml").read_text(encoding="utf-8"))
    assert tuple(basic["loggers"]) == cfg.TRACKING.BACKENDS
    default = yaml.safe_load((CONF / "data" / "config_file.yaml").read_text(encoding="utf-8"))
    assert set(default.values()) == {None}
    assert merged({"trainer": {"accelerator": "auto"}}).MODEL.DEVICE == cfg.MODEL.DEVICE


@pytest.mark.parametrize("path", sorted((CONF / "loggers").glob("*.yaml")), ids=lambda path: path.stem)
def test_loggers_are_trackers_that_exist(path):
    names = yaml.safe_load(path.read_text(encoding="utf-8"))["loggers"]
    assert set(names) <= set(BACKENDS)
    assert path.stem in ("none", "basic") or path.stem in names
    assert tuple(merged({"loggers": names}).TRACKING.BACKENDS) == tuple(names)


def test_data_sets_are_in_the_catalogue():
    from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog

    for path in (CONF / "data").glob("*.yaml"):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {*(data["train"] or ()), *(data["test"] or ())} <= set(DatasetCatalog.DATASETS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.key}-{row.target}")
def test_a_typed_value_arrives(row):
    typed, expected = TYPED[row.key]
    if row.target == "SOLVER.ACCUMULATE_GRAD":  # the second target of its key
        expected = True
    if row.target == "SOLVER.OPTIMIZER":
        typed, expected = "AdamW", "AdamW"
    found = value_of(merged(nested(row.key, typed)), row.target)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "row",
    [row for row in TABLE if not isinstance(value_of(cfg, row.target), (str, tuple)) or row.key == "hparams.optimizer"],
    ids=lambda row: f"{row.key}-{row.target}",
)
def test_a_value_of_another_kind_is_refused_by_the_name_that_was_typed(row):
    with pytest.raises(ValueError, match=f"^{row.key}=oats: "):
        make_overrides(nested(row.key, "oats"), cfg, folder="out")


def test_null_sets_nothing():
    tree = {TREE: empty_tree(cfg), "opts": []}
    settings = {**tree, **{row.key.partition(".")[0]: {} for row in TABLE if "." in row.key}}
    assert make_overrides(settings, cfg, folder="a/b") == ["OUTPUT_DIR", "a/b", "TRACKING.NAME", "a/b"]


def test_the_tree_that_hydra_knows_has_every_config_key():
    assert {key for key, value in leaves(empty_tree(cfg)) if value is None} == set(cfg.keys_below())


@pytest.mark.parametrize("key", ["SOLVER.STEPS", "DATASETS.CUSTOM", "MODEL.DEVICE", "OUTPUT_DIR", "NHWC", "SEED"])
def test_every_kind_of_config_key_can_be_given_by_its_own_name(key):
    value = {
        "SOLVER.STEPS": [3, 4],
        "DATASETS.CUSTOM": [{"name": "mine", "img_dir": "pictures", "ann_file": "a.json"}],
        "OUTPUT_DIR": 2024,
        "NHWC": False,
        "SEED": 3,
    }.get(key, "cpu")
    found = value_of(merged({TREE: nested(key, value)}), key)
    assert found == {"SOLVER.STEPS": (3, 4), "OUTPUT_DIR": "2024"}.get(key, value)


def test_what_stands_later_wins():
    settings = {"hparams": {"lr": 0.1, "seed": 1}, TREE: {"SOLVER": {"BASE_LR": 0.2}, "SEED": 2}, "opts": ["SEED", 3]}
    config = merged(settings)
    assert (config.SOLVER.BASE_LR, config.SEED) == (0.2, 3)
    config = merged({**settings, "opts": ["OUTPUT_DIR", "x"], "trainer": {"fast_dev_run": 2}})
    assert (config.OUTPUT_DIR, config.SOLVER.MAX_ITER, config.SAVE_CHECKPOINT) == ("", 2, False)


def test_opts_come_in_pairs_of_known_keys():
    with pytest.raises(ValueError, match=r"opts=.*pairs"):
        make_overrides({"opts": ["SEED"]}, cfg, folder="out")
    with pytest.raises(KeyError, match=r"SOLVER\.BASE_LRR; did you mean"):
        make_overrides({"opts": ["SOLVER.BASE_LRR", 1]}, cfg, folder="out")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("hparams.batchsize", "hparams.batch_size"),
        ("lr", "hparams.lr"),
        ("SOLVER.BASE_LR", "cfg.SOLVER.BASE_LR"),
        ("cfg.SOLVER.BASELR", "cfg.SOLVER.BASE_LR"),
        ("cfg.solver.base_lr", "cfg.SOLVER.BASE_LR"),
        ("experimentname", "experiment_name"),
        ("zzzzzzzz", ""),
    ],
)
def test_the_nearest_key(typed, meant):
    assert nearest_key(typed, cfg) == meant


@pytest.mark.parametrize(("given", "expected"), [(True, 1), (False, 0), (None, 0), (3, 3), (0, 0)])
def test_a_debug_run_takes_as_many_batches_as_it_is_told(given, expected):
    assert debug_batches({"trainer": {"fast_dev_run": given}}) == expected


@pytest.mark.parametrize("given", ["yes", -1, 0.5])
def test_debug_is_a_truth_value_or_a_number(given):
    with pytest.raises(ValueError, match=f"debug={given}"):
        debug_batches({"trainer": {"fast_dev_run": given}})


FIGURES = {"bbox": {"AP": 0.5, "AP50": 0.75}, "segm": {"AP": 0.25}}


def test_objectives():
    parse, select = hydra_train.parse_objective, hydra_train.select_objective
    assert select(FIGURES, parse(None)) == 0.25
    assert select({"bbox": FIGURES["bbox"]}, parse(None)) == 0.5
    assert select({}, parse(None)) is None
    assert select(FIGURES, parse("bbox.AP50")) == 0.75
    assert select(FIGURES, parse(["bbox.AP", "segm.AP"])) == (0.5, 0.25)
    with pytest.raises(ValueError, match=r"objective=keypoints\.AP: this run .* tested was bbox, segm"):
        select(FIGURES, parse("keypoints.AP"))
    with pytest.raises(ValueError, match=r"objective=bbox\.mAP: .* bbox has AP, AP50"):
        parse("bbox.mAP")
    with pytest.raises(ValueError, match=r"objective=AP: .* one of bbox, segm"):
        parse("AP")


def test_an_interrupted_run_is_marked_until_it_has_ended(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    marked = hydra_train.settle_name(folder, interrupted=True)
    assert marked.name == "run__interrupted__"
    assert f"hydra.run.dir={marked}" in capsys.readouterr().err
    assert hydra_train.settle_name(marked, interrupted=True) == marked
    assert hydra_train.settle_name(marked, interrupted=False) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "run__interrupted__").mkdir()
    assert hydra_train.settle_name(folder, interrupted=True) == folder


def test_what_one_job_sets_for_its_process_is_gone_in_the_next():
    threads = torch.get_num_threads()
    with hydra_train._torch_settings():
        torch.set_num_threads(threads + 1)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_the_tool_names_hydra_where_completion_looks_for_it():
    source = (CONF.parent / "tools" / "train_hydra.py").read_text(encoding="utf-8")
    assert "\n@hydra.main(" in source  # Hydra's scripts for bash and fish search the file for it
    top = {node.module for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)}
    assert top == {"__future__", "typing", "maskrcnn_benchmark.apps.hydra_app", "maskrcnn_benchmark.utils.openmp"}
