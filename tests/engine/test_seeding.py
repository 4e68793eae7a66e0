"""The switch to kernels that give the same bits each time."""

from __future__ import annotations

import os

import pytest
import torch

from maskrcnn_benchmark.apps.start import make_deterministic
from maskrcnn_benchmark.config import cfg as global_cfg


@pytest.fixture
def restored(monkeypatch):
    """Everything that the switch changes, put back in the end."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize(("asked", "device"), [(True, "cuda"), (False, "cuda"), (True, "cpu")])
def test_the_key_counts_on_a_gpu(restored, asked, device):
    cfg = global_cfg.clone()
    cfg.DETERMINISTIC = asked
    make_deterministic(cfg, torch.device(device))
    switched = asked and device == "cuda"
    assert torch.are_deterministic_algorithms_enabled() == switched
    assert torch.backends.cudnn.benchmark != switched
    assert torch.utils.deterministic.fill_uninitialized_memory != switched
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == switched
