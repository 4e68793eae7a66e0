"""Whole trainings on a GPU with DETERMINISTIC: programs of their own, the same bits."""

from __future__ import annotations

import pytest
import torch

from tests.apps.repeat_runs import Runs

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

SHAPES = {"INPUT__SHAPE_BUCKETS": "((64, 96), (96, 64), (96, 96))"}
SETTINGS = {
    "float32": {},
    "tf32": {"DTYPE": "tf32"},
    "float16": {"DTYPE": "float16", "NHWC": True},
    "bfloat16": {"DTYPE": "bfloat16", "NHWC": True},
    "cuda_graphs": {"MODEL__CAPTURE": "cuda_graphs", **SHAPES},
    "compile": {"MODEL__CAPTURE": "compile", **SHAPES},
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def train_twice(folder, repository, monkeypatch, keys, *, launcher=()):
    """Two runs; returns exit status and report of their comparison, and the manifest of one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    runs = Runs(folder, repository)
    for name in ("a", "b"):
        runs.launch(name, launcher=launcher, **{"MODEL__DEVICE": "cuda", "DETERMINISTIC": True, **keys})
    return (*runs.compare("a", "b"), runs.manifest("a")["facts"])


@pytest.mark.parametrize("keys", SETTINGS.values(), ids=SETTINGS)
def test_two_trainings_give_the_same_bits(tmp_path, repository, monkeypatch, keys):
    status, report, facts = train_twice(tmp_path, repository, monkeypatch, keys)
    assert status == 0, report
    assert facts["execution"]["device"] == "cuda"
    assert facts["execution"]["deterministic_kernels"]
    assert facts["environment"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="gpu: fewer than two CUDA devices")
def test_two_trainings_on_two_gpus_give_the_same_bits(tmp_path, repository, monkeypatch):
    status, report, facts = train_twice(tmp_path, repository, monkeypatch, {}, launcher=TORCHRUN)
    assert status == 0, report
    assert facts["execution"]["processes"] == 2
    assert facts["environment"]["NCCL_ALGO"] == "Ring"
