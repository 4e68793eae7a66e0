"""The facts of a manifest: everything that the bits of a run depend on."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import orjson
import torch
from yacs.config import CfgNode

import maskrcnn_benchmark
from maskrcnn_benchmark.data.fingerprint import describe_datasets
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.ops import backend_info
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.collect_env import collect_machine, collect_variables, collect_versions
from maskrcnn_benchmark.utils.digest import digest_file
from maskrcnn_benchmark.utils.nested import flatten

PACKAGE = Path(maskrcnn_benchmark.__file__).resolve().parent
GIT_SECONDS = 5.0  # a checkout on a slow file system must not hold up a run for longer

_COMPILER = re.compile(rb"(?:GCC: |clang version )[^\0\n]{3,80}")
# What may be secret in an address: user and password before the host, and the query.
_ADDRESS = re.compile(r"(\w+://)(?:[^/@\s\"']*@)?([^\s\"'?#]*)(\?[^\s\"'#]*)?")


def hide_secrets(text: str) -> str:
    """A text without the users, passwords and queries of the addresses in it."""
    return _ADDRESS.sub(lambda found: found.group(1) + found.group(2), text)


def without_secrets(tree: Any) -> Any:
    """A tree of plain values with `hide_secrets` of every text in it."""
    if isinstance(tree, dict):
        return {key: without_secrets(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [without_secrets(value) for value in tree]
    return hide_secrets(tree) if isinstance(tree, str) else tree


def make_config_facts(cfg: CfgNode) -> dict[str, Any]:
    """The whole config, flat, and its hash.

    Args:
        cfg: the whole config; OUTPUT_DIR is left out of the hash, because two runs never share it.
    """
    values = flatten(orjson.loads(orjson.dumps(cfg, default=_plain)))
    hashed = {key: value for key, value in values.items() if key != "OUTPUT_DIR"}
    text = orjson.dumps(hashed, option=orjson.OPT_SORT_KEYS)
    return {"sha256": hashlib.sha256(text).hexdigest(), "values": values}


def make_data_facts(cfg: CfgNode, dataset: Any) -> dict[str, Any]:
    """What the run trains on, by the names of DATASETS.TRAIN."""
    return {"train": dict(zip(cfg.DATASETS.TRAIN, describe_datasets(dataset), strict=True))}


def make_weights_facts(cfg: CfgNode, initial: str | None) -> dict[str, Any]:
    """MODEL.WEIGHT, with its file's content where it is a path.

    Args:
        cfg: reads MODEL.WEIGHT.
        initial: digest of the weights that training begins with, after that file was loaded; None: not known.
    """
    path = os.path.expanduser(cfg.MODEL.WEIGHT)
    file = digest_file(path) if os.path.isfile(path) else None
    return {"file": cfg.MODEL.WEIGHT, "file_sha256": file, "initial_sha256": initial}


def program_facts() -> dict[str, Any]:
    """Version, source and compiled kernels of this package."""
    info = backend_info()
    extension: dict[str, Any] = {"missing": info["missing_reason"]}
    if info["extension"]:
        content = Path(info["extension"]).read_bytes()
        compilers = sorted({found.decode(errors="replace") for found in _COMPILER.findall(content)})
        extension = {"sha256": hashlib.sha256(content).hexdigest(), "compiler": ", ".join(compilers)}
    for device in ("cpu", "cuda"):
        compiled = [name for name, by_device in info["kernels"].items() if by_device[device] == "compiled"]
        extension[f"kernels_{device}"] = " ".join(compiled)
    return {
        "version": maskrcnn_benchmark.__version__,
        "source": digest_source(),
        "git": git_facts(PACKAGE.parent),
        "extension": extension,
    }


@functools.cache
def digest_source() -> str:
    """sha256 over the package's own Python files with their names: holds without git, and for changes in a checkout."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def git_facts(folder: Path) -> dict[str, Any] | None:
    """Commit of a checkout, and whether and how its tracked files differ from it; None where git knows nothing."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    difference = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv")
    if commit is None or difference is None:
        return None
    changes = hashlib.sha256(difference).hexdigest() if difference else None
    return {"commit": commit.decode().strip(), "dirty": bool(difference), "changes_sha256": changes}


def execution_facts(device: torch.device, precision: Precision, loader: Any) -> dict[str, Any]:
    """How the run is spread over processes and threads, and which switches of PyTorch are on."""
    processes, decoder = comm.get_world_size(), getattr(loader, "decode", None)
    facts = {
        "device": device.type,
        "processes": processes,
        "nodes": max(processes // max(comm.get_local_world_size(), 1), 1),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "opencv_threads": cv2.getNumThreads(),
        "dtype": str(precision.dtype).removeprefix("torch."),
        "memory_format": str(precision.memory_format).removeprefix("torch."),
        "loader": type(decoder).__name__.removesuffix("Decoder").lower() if decoder is not None else "workers",
        "deterministic_kernels": torch.are_deterministic_algorithms_enabled(),
    }
    if device.type == "cuda":
        facts["cudnn_benchmark"] = torch.backends.cudnn.benchmark
        facts["matmul_precision"] = torch.backends.cuda.matmul.fp32_precision
        facts["convolution_precision"] = torch.backends.cudnn.conv.fp32_precision
    return facts


def gather_processes(device: torch.device) -> list[dict[str, Any]]:
    """What should be the same in every process of a run, in order of rank; all processes must call this."""
    try:
        machine = collect_machine()
        facts = {
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else machine["processor"],
            "instruction_set": machine["instruction_set"],
            "vector_extensions": machine["vector_extensions"],
            "torch": torch.__version__,
            "source": digest_source(),
        }
    except Exception as error:  # the others wait in the exchange below
        facts = {"unknown": str(error)}
    return comm.all_gather(facts)


def name_odd_processes(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """By rank, what differs from the first process."""
    return {
        str(rank): {name: value for name, value in facts.items() if value != processes[0].get(name)}
        for rank, facts in enumerate(processes)
        if facts != processes[0]
    }


def environment_facts() -> dict[str, Any]:
    """Versions, machine and variables."""
    return {"versions": collect_versions(), "machine": collect_machine(), "environment": collect_variables()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def _git(folder: Path, *words: str) -> bytes | None:
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
