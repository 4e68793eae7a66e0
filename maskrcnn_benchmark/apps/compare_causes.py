"""Which differences between the manifests of two runs can explain where the runs part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn_benchmark.utils.nested import flatten

# Where two runs can part.
WEIGHTS_AT_START, IMAGES, RATE, LOSSES, LENGTH, EVALUATION = (
    "initial weights", "images", "learning rate", "losses", "length", "evaluation",
)  # fmt: skip
_TRAINING = (WEIGHTS_AT_START, IMAGES, RATE, LOSSES)
_ALL = (*_TRAINING, LENGTH, EVALUATION)
_NUMERIC = (LOSSES, EVALUATION)


@dataclass(frozen=True)
class Cause:
    """A fact that differs.

    Args:
        fact: its dotted name.
        values: of run A and of run B.
        why: how it changes bits.
        weight: the likelier the higher.
    """

    fact: str
    values: tuple[Any, Any]
    why: str
    weight: int


@dataclass(frozen=True)
class _Rule:
    pattern: str  # of the whole dotted name; the first rule that fits counts
    stages: Sequence[str]  # where runs can part because of it
    weight: int
    why: str


_RULES = (
    _Rule(r"config\.values\.SEED", _TRAINING, 100, "everything random follows from it"),
    _Rule(r"weights\.initial_sha256|config\.sha256", (), 0, ""),  # a sign, no cause
    _Rule(r"weights\..*", (WEIGHTS_AT_START,), 90, "training begins with other weights"),
    _Rule(r"data\..*", (IMAGES, LOSSES), 90, "other images or annotations"),
    _Rule(r"execution\.processes", (IMAGES, LOSSES, EVALUATION), 95, "each process takes its share of every batch"),
    _Rule(r"execution\.threads", _NUMERIC, 92, "sums are split over threads, so they round otherwise"),
    _Rule(r"execution\.(device|dtype|memory_format|loader)", _NUMERIC, 91, "other kernels compute"),
    _Rule(r"execution\.\w+_precision|execution\.deterministic_kernels", _NUMERIC, 85, "other kernels compute"),
    _Rule(r"execution\.odd_processes.*", _NUMERIC, 80, "processes run on unlike machines or programs"),
    _Rule(r"execution\.nodes|execution\.cudnn_benchmark", _NUMERIC, 50, "sums can come in another order"),
    _Rule(r"execution\.\w+", (), 0, "computes nothing of the run"),
    _Rule(r"machine\.(instruction_set|gpus.*)", _NUMERIC, 88, "kernels are chosen by it"),
    _Rule(r"machine\.(vector_extensions|architecture)", _NUMERIC, 70, "libraries choose kernels by it"),
    _Rule(r"machine\.(processor|libc|system)", _NUMERIC, 40, "libraries can choose kernels by it"),
    _Rule(r"machine\.\w+", (), 0, "computes nothing of the run"),
    _Rule(r"program\.source", _ALL, 75, "the package's own code differs"),
    _Rule(r"program\.extension\..*", _NUMERIC, 72, "the compiled kernels differ"),
    _Rule(r"program\..*", _ALL, 60, "another state of the checkout"),
    _Rule(r"versions\.torch", (WEIGHTS_AT_START, *_NUMERIC), 74, "kernels and random numbers come from it"),
    _Rule(r"versions\.(cuda|cudnn|nccl|driver|apex)", _NUMERIC, 65, "kernels come from it"),
    _Rule(r"versions\.(opencv|nvidia-dali|torchvision).*", _NUMERIC, 64, "it decodes or scales the images"),
    _Rule(r"versions\.pycocotools", (EVALUATION, LOSSES), 50, "it decodes masks"),
    _Rule(r"versions\.(numpy|python)", _ALL, 30, "data are prepared with it"),
    _Rule(r"versions\.\S+", (), 0, "computes nothing of the run"),
    _Rule(r"environment\.(PYTHONHASHSEED|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|MASKRCNN_REQUIRE_EXT)", (), 0, ""),
    _Rule(r"environment\.\w+", _NUMERIC, 60, "libraries choose kernels, or the order of sums, by it"),
    _Rule(
        r"config\.values\.(OUTPUT_DIR|SAVE_CHECKPOINT|CPU_THREADS|AMP_VERBOSE|PATHS_CATALOG|MLPERF\..*|PROCESS_TIMEOUT|"
        r"DATALOADER\.(NUM_WORKERS|TIMEOUT)|SOLVER\.(LOG_PERIOD|CHECKPOINT_\w+|TEST_PERIOD)|DATASETS\.DATA_DIR)",
        (),
        0,
        "changes no bit of the run",  # CPU_THREADS does where it changes execution.threads
    ),
    _Rule(r"config\.values\.(PER_EPOCH_EVAL|MIN_\w+_MAP|SOLVER\.MAX_ITER)", (LENGTH,), 90, "it ends the run"),
    _Rule(r"config\.values\.TEST\..*", (EVALUATION,), 90, "it changes the evaluation"),
    _Rule(r"config\.values\.DATASETS\.TEST", (EVALUATION,), 90, "other data are evaluated"),
    _Rule(r"config\.values\.DATASETS\.CUSTOM.*", (IMAGES, *_NUMERIC), 40, "it says where data lie"),
    _Rule(r"config\.values\.DATASETS\..*", (IMAGES, *_NUMERIC), 90, "other data are trained on"),
    _Rule(r"config\.values\.SOLVER\.IMS_PER_BATCH", (IMAGES, LOSSES), 92, "batches are of another size"),
    _Rule(r"config\.values\.SOLVER\.\w+", (RATE, LOSSES), 89, "it changes the updates"),
    _Rule(r"config\.values\.DATALOADER\..*", (IMAGES, LOSSES), 85, "it changes the batches"),
    _Rule(r"config\.values\.INPUT\..*", _NUMERIC, 89, "it changes the pixels"),
    _Rule(r"config\.values\.MODEL\..*", (WEIGHTS_AT_START, *_NUMERIC), 89, "it changes the network"),
    _Rule(r"config\.values\.(DETERMINISTIC|DTYPE|NHWC)", _NUMERIC, 80, "other kernels compute"),
    _Rule(r"config\.values\..*", _ALL, 80, "the config asks for something else"),
)


def facts_at(manifest: Mapping[str, Any], iteration: int | None) -> dict[str, Any]:
    """The flat facts that held in an iteration: those of the start it belongs to; None: of the last one."""
    facts = flatten(manifest["facts"])
    changes: Mapping[str, Any] = {}
    for start in manifest["starts"]:
        if iteration is None or start["iteration"] < max(iteration, 1):
            changes = start.get("changes", {})
    return {**facts, **{fact: now for fact, (_, now) in changes.items()}}


def find_causes(stage: str, facts: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[list[Cause], list[Cause]]:
    """The facts that differ: those that can explain that runs part there, the likeliest first, and the others.

    Args:
        stage: one of this module's names.
        facts: flat, of run A and of run B.
    """
    explaining, others = [], []
    for fact in sorted(facts[0].keys() | facts[1].keys()):
        values = facts[0].get(fact), facts[1].get(fact)
        if values[0] == values[1]:
            continue
        rule = next((rule for rule in _RULES if re.fullmatch(rule.pattern, fact)), _Rule("", _ALL, 10, "unknown"))
        cause = Cause(fact, values, rule.why, rule.weight)
        (explaining if stage in rule.stages else others).append(cause)
    return sorted(explaining, key=lambda cause: -cause.weight), others


def why_without_cause(facts: Mapping[str, Any]) -> str:
    """What remains where no recorded fact differs that could explain it."""
    if facts.get("execution.device") == "cuda" and not facts.get("execution.deterministic_kernels"):
        return (
            "nothing else has to: on a GPU without DETERMINISTIC True kernels add in an order that changes from run to "
            "run"
        )
    return (
        "no recorded fact explains it. Not recorded are the pixels of most images, parts of one's own outside the "
        "package, and faults of the machine; if none of these is it, it is a fault of this program: please report it "
        "with both manifests"
    )
