"""Seeds, and the switch to kernels that give the same bits each time."""

from __future__ import annotations

import os
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.apps import start
from maskrcnn_benchmark.apps.start import make_deterministic
from maskrcnn_benchmark.apps.train import make_parser
from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.engine.seeding import DETERMINISTIC_VARIABLES, seed_step


@pytest.fixture
def restored(monkeypatch):
    """Everything that the switch changes, put back in the end."""
    for name in DETERMINISTIC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    for name in DETERMINISTIC_VARIABLES:
        os.environ.pop(name, None)


@pytest.mark.parametrize(("asked", "device"), [(True, "cuda"), (False, "cuda"), (True, "cpu")])
def test_the_key_counts_on_a_gpu(restored, asked, device):
    cfg = global_cfg.clone()
    cfg.DETERMINISTIC = asked
    make_deterministic(cfg, torch.device(device))
    switched = asked and device == "cuda"
    assert torch.are_deterministic_algorithms_enabled() == switched
    assert torch.backends.cudnn.benchmark != switched
    assert torch.utils.deterministic.fill_uninitialized_memory != switched
    assert {name in os.environ for name in DETERMINISTIC_VARIABLES} == {switched}


def test_what_a_user_has_set_stays(restored, monkeypatch):
    compiler = SimpleNamespace(deterministic=False)
    monkeypatch.setitem(sys.modules, "torch._inductor.config", compiler)
    monkeypatch.setenv("NCCL_ALGO", "Tree")
    cfg = global_cfg.clone()
    cfg.DETERMINISTIC = True
    make_deterministic(cfg, torch.device("cuda"))
    assert os.environ["NCCL_ALGO"] == "Tree"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert compiler.deterministic  # it was imported before, and reads its variable only then


def test_nccl_finds_its_algorithm_when_the_processes_meet(restored, monkeypatch):
    found = {}

    def meet(device, **keywords):
        found.update(os.environ)
        raise InterruptedError

    monkeypatch.setattr(start, "build_device", lambda args, cfg: (torch.device("cuda"), ""))
    monkeypatch.setattr(start.comm, "init_process_group", meet)
    with pytest.raises(InterruptedError):
        start.start_run(make_parser().parse_args(["DETERMINISTIC", "True"]), global_cfg, training=True, testing=False)
    assert found["NCCL_ALGO"] == "Ring"


def test_a_part_of_ones_own_draws_the_same_numbers_in_an_iteration():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    seed_step(3, 7, 0)
    first = draw()
    draw()
    seed_step(3, 7, 0)
    assert draw() == first
    for other in ((4, 7, 0), (3, 8, 0), (3, 7, 1)):
        seed_step(*other)
        assert not set(draw()) & set(first)
