"""Updates that are not finite: kept from the weights, told of, skipped where that is asked for."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.engine.failures import FailureOptions
from maskrcnn_benchmark.engine.nonfinite import Skipping, UpdateGuard
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run
from tests.engine.test_two_processes import start

SKIP = FailureOptions(nonfinite="skip")


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def make_fused(folder):
    """What make_run gives, with the kernel that decides by itself, as make_optimizer makes it."""
    model, _, scheduler, checkpointer = make_run(folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    checkpointer.optimizer, checkpointer.scheduler = optimizer, scheduler
    return model, optimizer, scheduler, checkpointer


def faulty_loader(length, faulty, *, start_iter=0):
    """Batches of two images, of which those of the iterations ``faulty`` hold one whose loss is not finite."""
    loader = TinyLoader(length, size=2 * length, start_iter=start_iter)
    for iteration in faulty:
        loader.dataset.values[2 * iteration - 1] = float("nan")
    return loader


def train(folder, length, faulty, *, make=make_run, period=1000, **options):
    model, optimizer, scheduler, checkpointer = make(folder)
    arguments = {"iteration": 0}
    arguments.update(checkpointer.load())
    loader = faulty_loader(length, faulty, start_iter=arguments["iteration"])
    do_train(model, loader, optimizer, scheduler, checkpointer, "cpu", period, arguments, **options)
    return model, optimizer, arguments


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def plain_weights(folder, length, left_out, *, make=make_run, accumulate=1):
    """A loop of plain PyTorch that knows which updates to leave out."""
    model, optimizer, scheduler, _ = make(folder)
    optimizer.zero_grad()
    for iteration, (images, targets, _) in enumerate(faulty_loader(length, ()), 1):
        (sum(model(images, targets).values()) / accumulate).backward()
        if iteration % accumulate:
            continue
        if iteration not in left_out:
            optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return weights(model)


@pytest.mark.parametrize("make", [make_run, make_fused])
@pytest.mark.parametrize("faulty", [(1,), (3, 4), (2, 6)])
def test_a_skipped_update_is_left_out_and_nothing_else(tmp_path, make, faulty, log):
    sink = RecordingSink()
    options = {"failures": SKIP, "sink": sink, "log_period": 1}
    model, _, arguments = train(tmp_path / "a", 7, faulty, make=make, **options)
    assert torch.equal(weights(model), plain_weights(tmp_path / "b", 7, faulty, make=make))
    assert arguments["skips"]["total"] == len(faulty)
    told = [record.getMessage() for record in log.records if "its update is skipped" in record.getMessage()]
    assert len(told) == len(faulty)
    first = faulty[0]
    ids = f"image ids {1000 + 2 * first - 2}, {1000 + 2 * first - 1}"
    assert told[0] == f"loss_one is nan at iteration {first} (process 0, {ids}); its update is skipped, 1 so far"
    # the figures are of the other iterations
    assert all(torch.tensor(data["loss"]).isfinite() for (step,), data, _ in sink.rows if step > max(faulty))


def test_a_bad_micro_batch_costs_its_whole_update(tmp_path):
    model, _, arguments = train(tmp_path / "a", 9, (4,), failures=SKIP, accumulate_steps=3)
    assert torch.equal(weights(model), plain_weights(tmp_path / "b", 9, (6,), accumulate=3))
    assert arguments["skips"] == {"total": 1, "in_a_row": 0}


def test_too_many_in_a_row_end_the_run(tmp_path):
    options = FailureOptions(nonfinite="skip", nonfinite_limit=3)
    train(tmp_path / "a", 8, (1, 2, 4, 5, 7, 8), failures=options)
    with pytest.raises(FloatingPointError, match=r"at iteration 6 .* 3 updates in a row .*SOLVER.NONFINITE_LIMIT"):
        train(tmp_path / "b", 8, (2, 4, 5, 6, 7), failures=options)


def test_a_skipping_run_resumes_bit_for_bit(tmp_path):
    """Also the number in a row: the first two come before the interruption."""
    options = {"failures": FailureOptions(nonfinite="skip", nonfinite_limit=4), "period": 5, "log_period": 3}
    faulty = (2, 4, 5, 6, 9)
    whole, part = RecordingSink(), RecordingSink()
    model, optimizer, arguments = train(tmp_path / "whole", 12, faulty, sink=whole, **options)

    class Killed(Exception):
        pass

    def kill(iteration):
        if iteration == 7:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "part", 12, faulty, sink=part, per_iter_end_callback_fn=kill, **options)
    saved = torch.load(tmp_path / "part" / "model_0000005.pth", weights_only=True)
    assert saved["skips"] == {"total": 3, "in_a_row": 2}
    resumed, other, arguments_of_resumed = train(tmp_path / "part", 12, faulty, sink=part, **options)
    assert torch.equal(weights(model), weights(resumed))
    for a, b in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    assert arguments["skips"] == arguments_of_resumed["skips"] == {"total": 5, "in_a_row": 0}
    assert [(step, data["loss"]) for step, data, _ in part.rows[-2:]] == [
        (step, data["loss"]) for step, data, _ in whole.rows[-2:]
    ]


def test_the_weights_stay_those_of_the_faulty_iteration(tmp_path):
    """As on a GPU, where the host reads the losses later: nothing that follows changes a weight."""
    model, optimizer, scheduler, _ = make_fused(tmp_path)
    step = TrainStep(model, optimizer, scheduler, Precision())
    for iteration, (images, targets, _) in enumerate(faulty_loader(8, (4,)), 1):
        step(images, targets, iteration=iteration)
    assert torch.equal(weights(model), plain_weights(tmp_path, 8, range(4, 9), make=make_fused))
    assert step.guard.dropped.item() == 1


@pytest.mark.parametrize("keeps_on", [False, True])
def test_the_host_reads_nothing_where_the_optimizer_can_decide(tmp_path, monkeypatch, keeps_on):
    model, optimizer, scheduler, _ = make_fused(tmp_path)
    step = TrainStep(model, optimizer, scheduler, Precision(), skip_nonfinite=keeps_on)
    loader = faulty_loader(4, (2,))
    for name in ("__bool__", "item", "tolist", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_: pytest.fail("the host waits for the device"))
    for iteration, (images, targets, _) in enumerate(loader, 1):
        step(images, targets, iteration=iteration)


def test_a_gradient_alone_is_found(tmp_path):
    class BrokenGradient(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images, targets):
            # finite, with an infinite slope where a target is above 0
            return {"loss_root": (self.weight - 1).abs().sqrt().sum() * (targets.values[0] > 0)}

    model = BrokenGradient()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(FloatingPointError, match="the gradients are not finite, although the losses are, at iteration"):
        do_train(model, TinyLoader(9), optimizer, scheduler, None, "cpu", 0, {"iteration": 0})
    assert model.weight.item() == 1


def test_a_loss_scaler_leaves_the_update_out_too(tmp_path):
    precision = Precision("cpu", torch.float16)
    model, _, arguments = train(tmp_path, 30, (25,), failures=SKIP, precision=precision, make=make_fused)
    assert bool(weights(model).isfinite().all())
    # the updates that the scaler leaves out while it looks for its scale are not counted
    assert arguments["skips"] == {"total": 1, "in_a_row": 0}


@pytest.mark.parametrize("length", [1, 7, 1000, 100_003])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_one_number_anywhere_is_found(length, value):
    guard = UpdateGuard(nn.Identity(), keeps_on=True)
    generator = torch.Generator().manual_seed(0)
    for place in {0, length // 2, length - 1}:
        gradients = [torch.randn(3, generator=generator), torch.randn(length, generator=generator)]
        gradients[1][place] = value
        guard.watch(torch.tensor(1.0))
        assert bool(guard.judge(gradients, scaled=False)) == (not math.isfinite(value))


def test_running_statistics_go_back():
    norm = nn.BatchNorm1d(2)
    guard = UpdateGuard(norm, keeps_on=True)
    before = [buffer.clone() for buffer in norm.buffers()]
    for value, changed in ((float("nan"), False), (3.0, True)):
        guard.before_forward()
        total = norm(torch.full((4, 2), value)).sum()
        guard.watch(total)
        guard.judge([], scaled=False)
        same = [torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True)]
        assert same == [not changed] * 3


def test_a_limit_is_of_updates_in_a_row():
    response = Skipping(3)
    for dropped in (True, True, False, True, True):
        response.count(dropped=dropped)
    assert (response.total, response.in_a_row, response.longest) == (4, 2, 2)


def test_two_processes_skip_together(tmp_path, repository):
    """One of them has the loss that is not finite; both leave the update out, and name its images."""
    start("skipping_processes", 2, tmp_path, repository)
    outcomes = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2)]
    assert torch.equal(outcomes[0]["weights"], outcomes[1]["weights"])
    torch.testing.assert_close(outcomes[0]["weights"], outcomes[0]["plain"], rtol=1e-5, atol=1e-6)
    # also where no gradient tells the other process
    assert all(torch.equal(outcome["without_gradient"], outcomes[0]["weights"]) for outcome in outcomes)
    assert outcomes[0]["skips"] == outcomes[1]["skips"] == {"total": 1, "in_a_row": 0}
    assert outcomes[0]["told"] == [
        "loss_one is nan at iteration 3 (process 1, image ids 1005); its update is skipped, 1 so far"
    ]
    assert outcomes[0]["stopped"] == outcomes[1]["stopped"]
    assert "loss_one is nan at iteration 3 (process 1, image ids 1005)" in outcomes[0]["stopped"]
