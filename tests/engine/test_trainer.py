"""The training loop, on a network small enough to be followed by hand."""

from __future__ import annotations

import itertools
import logging
import os
import re

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.engine.losses import LossBuffer
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.seeding import step_seed
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.engine.trainer import do_train
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run

CPU = torch.device("cpu")


@pytest.fixture
def log(caplog, monkeypatch):
    """Log records of the loop."""
    logger = logging.getLogger("maskrcnn_benchmark")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.DEBUG)
    yield caplog
    logger.removeHandler(caplog.handler)


def train(folder, length, *, start=None, noise=0.0, period=1000, lr=0.05, loader=None, **options):
    """Train to iteration ``length``, going on from the folder's checkpoint; gives (model, optimizer, summary)."""
    model, optimizer, scheduler, checkpointer = make_run(folder, noise=noise, lr=lr)
    arguments = {"iteration": 0}
    arguments.update(checkpointer.load())
    loader = loader or TinyLoader(length, start_iter=arguments["iteration"])
    summary = do_train(model, loader, optimizer, scheduler, checkpointer, CPU, period, arguments, **options)
    return model, optimizer, summary


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def momenta(model, optimizer):
    return torch.cat([optimizer.state[parameter]["momentum_buffer"].flatten() for parameter in model.parameters()])


def test_one_update_an_iteration_as_plain_pytorch_does_it(tmp_path):
    model, _, summary = train(tmp_path / "a", 9)
    plain, optimizer, scheduler, _ = make_run(tmp_path / "b")
    for images, targets, _ in TinyLoader(9):
        optimizer.zero_grad()
        sum(plain(images, targets).values()).backward()
        optimizer.step()
        scheduler.step()
    assert torch.equal(parameters(model), parameters(plain))
    assert (summary.iterations, summary.images, summary.stopped_early) == (9, 18, False)


@pytest.mark.parametrize("stop", [4, 5])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, stop):
    """Weights, momentum, noise, log lines and their averages, bit for bit, for a stop within a log period as well."""
    whole, part = RecordingSink(), RecordingSink()
    model, optimizer, _ = train(tmp_path / "whole", 12, noise=0.5, period=stop, log_period=4, sink=whole)

    class Killed(Exception):
        pass

    def kill(iteration):
        if iteration == stop + 1:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "part", 12, noise=0.5, period=stop, log_period=4, sink=part, per_iter_end_callback_fn=kill)
    torch.rand(1234)  # the state of the generators must not matter
    resumed, other_optimizer, summary = train(tmp_path / "part", 12, noise=0.5, period=stop, log_period=4, sink=part)
    assert summary.iterations == 12 - stop
    assert torch.equal(parameters(model), parameters(resumed))
    assert torch.equal(momenta(model, optimizer), momenta(resumed, other_optimizer))

    def losses(sink):
        return [
            (step, {name: value for name, value in data.items() if "loss" in name or name == "learning_rate"},
             {name: value for name, value in text.items() if "loss" in name})
            for step, data, text in sink.rows
        ]  # fmt: skip

    assert losses(part) == losses(whole)
    assert [step for step, _, _ in whole.rows] == [(4,), (8,), (12,)]


def test_seeds_differ_by_seed_iteration_and_rank():
    seeds = {step_seed(*numbers) for numbers in ((0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 11, 1), (0, 1, 11), (1, 1, 1))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("accumulate_steps", [2, 3])
def test_accumulated_micro_batches_equal_one_large_batch(tmp_path, accumulate_steps):
    """The losses are means over images, so N micro-batches of 2 are one batch of 2 N."""
    length = 4 * accumulate_steps
    small, *_ = train(tmp_path / "a", length, accumulate_steps=accumulate_steps, loader=TinyLoader(length, size=24))
    large, *_ = train(tmp_path / "b", 4, loader=TinyLoader(4, batch_size=2 * accumulate_steps, size=24))
    torch.testing.assert_close(parameters(small), parameters(large), rtol=1e-6, atol=1e-7)


def test_a_checkpoint_waits_for_the_end_of_an_update(tmp_path):
    train(tmp_path, 12, accumulate_steps=3, period=4)
    names = sorted(name for name in os.listdir(tmp_path) if name.startswith("model_0"))
    assert names == ["model_0000006.pth", "model_0000009.pth", "model_0000012.pth"]


def test_files_of_a_run(tmp_path):
    train(tmp_path, 5, period=2)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000002.pth",
        "model_0000004.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text().endswith("model_final.pth")
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 5


def test_a_finished_run_has_nothing_to_do(tmp_path):
    train(tmp_path, 5)
    _, _, summary = train(tmp_path, 5)
    assert (summary.iterations, summary.images_per_second) == (0, 0.0)


def test_log_lines(tmp_path, log):
    train(tmp_path, 45)
    lines = [record.getMessage() for record in log.records if "iter: " in record.getMessage()]
    number = r"\d+\.\d{4} \(\d+\.\d{4}\)"
    pattern = (
        rf"eta: \d+:\d\d:\d\d  iter: (\d+)  loss: {number}  loss_one: {number}  loss_two: {number}  "
        rf"time: {number}  data: {number}  lr: 0\.\d{{6}}  max mem: \d+"
    )
    assert [re.fullmatch(pattern, line).group(1) for line in lines] == ["20", "40", "45"]
    last = log.records[-1]
    assert last.name == "maskrcnn_benchmark.trainer"
    assert re.fullmatch(r"Total training time: 0:00:0\d\.\d+ \(0\.\d{4} s / it\)", last.getMessage())


def test_figures_of_a_report(tmp_path):
    sink = RecordingSink()
    train(tmp_path, 4, sink=sink, iterations_per_epoch=2, log_period=4)
    ((step, data, text),) = sink.rows
    assert step == (4, 2)
    assert list(data) == ["eta", "learning_rate", "memory", "loss", "loss_one", "loss_two", "time", "data"]
    assert data["loss"] == pytest.approx(data["loss_one"] + data["loss_two"])
    assert re.fullmatch(r"\d+\.\d{4} \(\d+\.\d{4}\)", text["loss"])


def test_the_rate_of_a_line_is_the_one_that_was_used(tmp_path):
    sink = RecordingSink()
    train(tmp_path, 4, sink=sink, log_period=1)
    # linear warm-up over 3 steps from 1/3 of 0.05, by hand
    assert [data["learning_rate"] for _, data, _ in sink.rows] == pytest.approx([0.05 / 3, 0.25 / 9, 0.35 / 9, 0.05])


def test_losses_are_read_once_a_period(tmp_path, monkeypatch):
    reads = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor.shape) or original(tensor))
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: pytest.fail("a loss was read on its own"))
    model, optimizer, scheduler, _ = make_run(tmp_path)
    do_train(model, TinyLoader(40), optimizer, scheduler, None, CPU, 0, {"iteration": 0}, log_period=20)
    assert reads == [torch.Size([20, 3])] * 2  # two losses, and whether the update was dropped


class Wrapped(torch.nn.Module):
    """A model as it looks where there are several processes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return self.module(*args)


def test_the_callback_ends_the_run_and_its_weights_are_saved(tmp_path):
    model, _, summary = train(tmp_path, 9, per_iter_end_callback_fn=lambda iteration: iteration == 4)
    assert (summary.iterations, summary.stopped_early) == (4, True)
    data = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert data["iteration"] == 4
    assert torch.equal(data["model"]["layer.weight"], model.layer.weight)


def test_evaluation_in_between_leaves_the_model_in_training(tmp_path):
    model, optimizer, scheduler, _ = make_run(tmp_path)
    modes = []

    def evaluate(iteration):
        modes.append(model.training)
        model.eval()

    do_train(
        model, TinyLoader(3), optimizer, scheduler, None, CPU, 0, {"iteration": 0}, per_iter_end_callback_fn=evaluate
    )
    assert modes == [True] * 3


def test_evaluation_in_between_leaves_a_wrapped_model_in_training(tmp_path):
    model, optimizer, scheduler, _ = make_run(tmp_path)
    wrapped = Wrapped(model)
    modes = []

    def evaluate(iteration):
        modes.append(wrapped.module.training)
        wrapped.module.eval()  # evaluation does not know that there is a wrapper

    do_train(
        wrapped, TinyLoader(3), optimizer, scheduler, None, CPU, 0, {"iteration": 0}, per_iter_end_callback_fn=evaluate
    )
    assert modes == [True] * 3


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    train(tmp_path, 4, period=4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    loader = TinyLoader(12, start_iter=4)
    loader.dataset.values[5] = float("inf")  # in iterations 3, 7, 11: indices 4 and 5
    with pytest.raises(FloatingPointError, match=r"loss_one is inf at iteration 7 .*image ids 1004, 1005") as error:
        train(tmp_path, 12, loader=loader, period=8, log_period=20)
    assert "loss_two" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    class BrokenGradient(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images, targets):
            return {"loss_root": self.weight.sqrt().sum()}  # 0 with an infinite slope

    model = BrokenGradient()
    *_, checkpointer = make_run(tmp_path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(FloatingPointError, match=r"gradients are not finite, although .* iteration 1"):
        do_train(model, TinyLoader(1), optimizer, scheduler, checkpointer, CPU, 1, {"iteration": 0})
    assert os.listdir(tmp_path) == []
    assert model.weight.item() == 0


def test_gradients_are_limited(tmp_path):
    model, optimizer, scheduler, _ = make_run(tmp_path)
    plain = make_run(tmp_path)[0]
    images, targets, _ = next(iter(TinyLoader(1)))
    sum(plain(images, targets).values()).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    assert gradient.norm() > 0.1
    do_train(model, TinyLoader(1), optimizer, scheduler, None, CPU, 0, {"iteration": 0}, max_grad_norm=0.1)
    moved = parameters(model) - parameters(plain)
    torch.testing.assert_close(moved, -0.05 / 3 * gradient * 0.1 / gradient.norm(), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_near_float32(tmp_path, dtype):
    precision = Precision("cpu", dtype)
    scales = [precision.scaler.get_scale()]
    half, *_ = train(
        tmp_path,
        12,
        precision=precision,
        per_iter_end_callback_fn=lambda iteration: scales.append(precision.scaler.get_scale()),
    )
    # Where a gradient overflows float16, the scale is halved and the update left out.
    skipped = [after < before for before, after in itertools.pairwise(scales)]
    assert any(skipped) == (dtype == torch.float16)
    full, optimizer, scheduler, _ = make_run(tmp_path)
    for skip, (images, targets, _) in zip(skipped, TinyLoader(12), strict=True):
        optimizer.zero_grad()
        sum(full(images, targets).values()).backward()
        if not skip:
            optimizer.step()
        scheduler.step()
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
    assert not torch.equal(parameters(half), parameters(full))
    torch.testing.assert_close(parameters(half), parameters(full), rtol=0.03, atol=0.03)


def test_the_loss_scale_comes_back(tmp_path):
    train(tmp_path, 12, precision=Precision("cpu", torch.float16))
    path = tmp_path / "model_final.pth"
    saved = torch.load(path, weights_only=True)
    saved["scaler"]["scale"] = 8.0
    torch.save(saved, path)
    precision = Precision("cpu", torch.float16)
    train(tmp_path, 13, precision=precision)
    assert precision.scaler.get_scale() == 8.0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_on_a_gpu_never_waits_for_it(tmp_path, dtype):
    device = torch.device("cuda")
    precision = Precision("cuda", dtype, channels_last=True)
    model = precision.place_model(make_run(tmp_path)[0], device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    step = TrainStep(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), precision)
    batches = [(images.to(device), targets.to(device)) for images, targets, _ in TinyLoader(4)]
    buffer = LossBuffer()
    step(*batches[0], iteration=1)  # the scaler moves to the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration, (images, targets) in enumerate(batches, 2):
            buffer.append(iteration, step(images, targets, iteration=iteration), (0, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(buffer.read()) == 4
