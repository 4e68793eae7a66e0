"""The keys of conf/ and the config keys that they stand for; nothing here needs Hydra, or torch."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode

Settings = Mapping[str, Any]
"""What Hydra composed from conf/, as plain mappings, lists and values."""

TREE = "cfg"
"""Below it stands every config key by its own name: ``cfg.SOLVER.BASE_LR=0.01``."""


def _same(value: Any) -> Any:
    return value


def _named(names: Mapping[str, Any], *, others: bool = False) -> Callable[[Any], Any]:
    """A translation of names; with ``others`` a name that is not in the list stands for itself."""

    def convert(value: Any) -> Any:
        if not others and str(value) not in names:
            raise ValueError(f"choose one of {', '.join(names)}")
        return names.get(str(value), value)

    return convert


_DEVICES = _named({"auto": None, "cpu": "cpu", "gpu": "cuda"}, others=True)
_NUMBERS = _named(
    {"32": "float32", "16": "float16", "16-mixed": "float16", "bf16": "bfloat16", "bf16-mixed": "bfloat16"}, others=True
)
_OPTIMIZERS = _named({"SGD": "SGD", "FusedSGD": "SGD", "Adam": "Adam", "AdamW": "AdamW"})
_FUSED_SGD = _named({"SGD": "torch", "FusedSGD": "apex", "Adam": None, "AdamW": None})


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Args:
        key: of conf/, dotted; null there leaves the config key as the config file has it.
        target: the config key.
        convert: from the value of one to that of the other; None leaves the config key alone.
    """

    key: str
    target: str
    convert: Callable[[Any], Any] = _same


TABLE = (
    Setting("project_name", "TRACKING.PROJECT"),
    Setting("experiment_name", "TRACKING.EXPERIMENT"),
    Setting("loggers", "TRACKING.BACKENDS"),
    Setting("data.train", "DATASETS.TRAIN"),
    Setting("data.test", "DATASETS.TEST"),
    Setting("data.dir", "DATASETS.DATA_DIR"),
    Setting("hparams.batch_size", "SOLVER.IMS_PER_BATCH"),
    Setting("hparams.optimizer", "SOLVER.OPTIMIZER", _OPTIMIZERS),
    Setting("hparams.optimizer", "SOLVER.FUSED_SGD", _FUSED_SGD),
    Setting("hparams.lr", "SOLVER.BASE_LR"),
    Setting("hparams.momentum", "SOLVER.MOMENTUM"),
    Setting("hparams.weight_decay", "SOLVER.WEIGHT_DECAY"),
    Setting("hparams.num_workers", "DATALOADER.NUM_WORKERS"),
    Setting("hparams.seed", "SEED"),
    Setting("trainer.max_steps", "SOLVER.MAX_ITER"),  # conf/ takes it from hparams.max_iter
    Setting("trainer.accelerator", "MODEL.DEVICE", _DEVICES),
    Setting("trainer.precision", "DTYPE", _NUMBERS),
    Setting("trainer.deterministic", "DETERMINISTIC"),
    Setting("trainer.gradient_clip_val", "SOLVER.MAX_GRAD_NORM"),
    Setting("trainer.accumulate_grad_batches", "SOLVER.ACCUMULATE_STEPS"),
    Setting("trainer.accumulate_grad_batches", "SOLVER.ACCUMULATE_GRAD", lambda count: count > 1),
    Setting("trainer.val_check_interval", "SOLVER.TEST_PERIOD"),
    Setting("trainer.log_every_n_steps", "SOLVER.LOG_PERIOD"),
    Setting("trainer.enable_checkpointing", "SAVE_CHECKPOINT"),
    Setting("model_checkpoint.every_n_train_steps", "SOLVER.CHECKPOINT_PERIOD"),
    Setting("model_checkpoint.save_last_k", "SOLVER.CHECKPOINT_KEEP"),
    Setting("early_stopping.enabled", "PER_EPOCH_EVAL"),
    Setting("early_stopping.min_bbox_ap", "MIN_BBOX_MAP"),
    Setting("early_stopping.min_segm_ap", "MIN_MASK_MAP"),
)

OWN_KEYS = (
    "config_file",
    "debug",
    "skip_test",
    "objective",
    "opts",
    "hparams.max_iter",
    "trainer.devices",
    "trainer.fast_dev_run",
)
"""Keys of conf/ that stand for no config key: what the program itself is told."""

DEBUG = {
    "OUTPUT_DIR": "",
    "SAVE_CHECKPOINT": False,
    "REPORT": False,
    "TRACKING.BACKENDS": (),
    "MLPERF.LOG": "",
    "PER_EPOCH_EVAL": False,
    "SOLVER.TEST_PERIOD": 0,
    "TEST.EXPECTED_RESULTS": (),
    "TEST.BOOTSTRAP": 0,
}
"""What a debug run changes, beside the number of iterations: it leaves nothing behind."""


def debug_batches(settings: Settings) -> int:
    """How many batches of training, validation and test a debug run takes; 0 for a real run.

    Raises:
        ValueError: trainer.fast_dev_run is neither a truth value nor a number of batches.
    """
    value = _get(settings, "trainer.fast_dev_run")
    if value is None or value is False:
        return 0
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"debug={value}: give True, False or a number of batches")
    return int(value)


def make_overrides(settings: Settings, cfg: CfgNode, *, folder: str) -> list[str]:
    """The composed settings as ``[KEY, VALUE, ...]``, as they would be typed after tools/train_net.py.

    What stands later wins: the folder, the rows of the table, the keys below ``cfg``, ``opts``, a debug run's own.

    Args:
        settings: see ``Settings``.
        cfg: the config tree with its defaults; stays as it is.
        folder: OUTPUT_DIR, and the name of the run for trackers, where the settings do not say otherwise.

    Raises:
        ValueError, KeyError: a value does not fit, with the key as it was typed.
    """
    given = {"OUTPUT_DIR": folder, "TRACKING.NAME": os.path.relpath(folder)}
    pairs = [
        *((key, key, value) for key, value in given.items()),
        *_table_pairs(settings),
        *_tree_pairs(settings.get(TREE) or {}),
    ]
    opts = settings.get("opts") or []
    if len(opts) % 2:
        raise ValueError(f"opts={opts}: keys and values come in pairs, such as opts=[SOLVER.BASE_LR,0.01]")
    pairs += [("opts", str(key), value) for key, value in zip(opts[0::2], opts[1::2], strict=True)]
    if batches := debug_batches(settings):
        pairs += [("debug", key, value) for key, value in {**DEBUG, "SOLVER.MAX_ITER": batches}.items()]
    trial = cfg.clone()
    words = []
    for key, target, value in pairs:
        try:
            trial.merge_from_list([target, str(value)])
        except ValueError as error:
            raise ValueError(f"{key}={value}: {error}") from error
        words += [target, str(value)]
    return words


def _table_pairs(settings: Settings) -> Iterator[tuple[str, str, Any]]:
    for row in TABLE:
        value = _get(settings, row.key)
        if value is None:
            continue
        try:
            value = row.convert(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{row.key}={value}: {error}") from error
        if value is not None:
            yield row.key, row.target, value


def _tree_pairs(tree: Settings, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _tree_pairs(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{TREE}.{prefix}{key}", f"{prefix}{key}", value


def _get(settings: Settings, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def empty_tree(cfg: CfgNode) -> dict[str, Any]:
    """The config tree with null for every value: what Hydra knows and completes below ``cfg``."""
    return {key: empty_tree(value) if isinstance(value, CfgNode) else None for key, value in cfg.items()}


def nearest_key(typed: str, cfg: CfgNode) -> str:
    """The key that somebody who typed an unknown one probably meant; "" for none."""
    known = dict.fromkeys([*OWN_KEYS, *(row.key for row in TABLE), *(f"{TREE}.{key}" for key in cfg.keys_below())])
    by_case: dict[str, str] = {}
    for key in known:
        by_case.setdefault(key.lower(), key)
    wanted = typed.lower()
    ends = [key for key in by_case if key.endswith(f".{wanted}") or wanted.endswith(f".{key}")]
    same_leaf = [key for key in by_case if key.rpartition(".")[2] == wanted.rpartition(".")[2]]
    found: Sequence[str] = ends[:1] or difflib.get_close_matches(wanted, same_leaf or by_case, n=1)
    return by_case[found[0]] if found else ""
