"""Training with Adam: resumed bit for bit, and an update that is not finite is left out."""

from __future__ import annotations

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.engine.failures import FailureOptions
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.solver import WarmupMultiStepLR
from maskrcnn_benchmark.solver.eager import EagerAdam, EagerAdamW
from tests.engine.stand_ins import TinyDetector, TinyLoader


class Faulty(TinyLoader):
    """One iteration has a loss that is not finite."""

    def __init__(self, length, *, at=0, **options):
        super().__init__(length, **options)
        self.at = at

    def __iter__(self):
        for iteration, (images, targets, indices) in enumerate(super().__iter__(), self.start_iter + 1):
            if iteration == self.at:
                targets.values = targets.values * float("nan")
            yield images, targets, indices


def run(folder, kind, length, *, at=0):
    model = TinyDetector(noise=0.1)
    optimizer = kind(model.parameters(), lr=0.01, fused=True)
    scheduler = WarmupMultiStepLR(optimizer, (6,), warmup_iters=3)
    checkpointer = DetectronCheckpointer(
        CfgNode({"SEED": 0}), model, optimizer, scheduler, str(folder), save_to_disk=True
    )
    arguments = {"iteration": 0, **checkpointer.load()}
    loader = Faulty(length, at=at, start_iter=arguments["iteration"])
    failures = FailureOptions("skip", 3) if at else None
    do_train(model, loader, optimizer, scheduler, checkpointer, "cpu", 0, arguments, failures=failures)
    return torch.load(folder / "model_final.pth", weights_only=True)


@pytest.mark.parametrize("kind", [EagerAdam, EagerAdamW])
def test_a_resumed_run_equals_the_whole_one(tmp_path, kind):
    whole = run(tmp_path / "whole", kind, 10)
    run(tmp_path / "broken", kind, 4)
    resumed = run(tmp_path / "broken", kind, 10)
    assert resumed["iteration"] == 10
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name])
    for a, b in zip(whole["optimizer"]["state"].values(), resumed["optimizer"]["state"].values(), strict=True):
        assert set(a) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("at", [1, 4])
def test_an_update_that_is_not_finite_is_left_out(tmp_path, at):
    state = run(tmp_path, EagerAdamW, 6, at=at)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert {float(entry["step"]) for entry in state["optimizer"]["state"].values()} == {5.0}
