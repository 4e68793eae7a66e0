"""Parameter groups, the warm-up schedules against their formulas, and published optimiser states."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.solver import WarmupMultiStepLR, load_optimizer_state, make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.solver.eager import EagerAdam, EagerAdamW, EagerSGD


def make_cfg(**changes):
    solver = CfgNode(
        {
            "BASE_LR": 0.02,
            "BIAS_LR_FACTOR": 2,
            "WEIGHT_DECAY": 1e-4,
            "WEIGHT_DECAY_BIAS": 0,
            "MOMENTUM": 0.9,
            "STEPS": (6, 8),
            "GAMMA": 0.1,
            "WARMUP_FACTOR": 0.5,
            "WARMUP_ITERS": 4,
            "WARMUP_METHOD": "linear",
            "OPTIMIZER": "SGD",
            "BETAS": (0.9, 0.999),
            "FUSED_SGD": "torch",
        }
    )
    solver.update(changes)
    return CfgNode({"SOLVER": solver})


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 1))
    model[3].requires_grad_(False)
    return model


def rates(scheduler, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def test_one_group_per_hyperparameter_set():
    model = make_model()
    weights, biases = make_optimizer(make_cfg(), model).param_groups
    assert [p.dim() for p in weights["params"]] == [4, 2, 2]
    assert [p.dim() for p in biases["params"]] == [1, 1, 1]
    assert (weights["lr"], weights["weight_decay"]) == (0.02, 1e-4)
    assert (biases["lr"], biases["weight_decay"]) == (0.04, 0)


def test_equal_hyperparameters_share_a_group():
    cfg = make_cfg(BIAS_LR_FACTOR=1, WEIGHT_DECAY_BIAS=1e-4)
    assert len(make_optimizer(cfg, make_model()).param_groups) == 1


def test_nothing_to_train_is_said():
    with pytest.raises(ValueError, match="FREEZE_CONV_BODY_AT"):
        make_optimizer(make_cfg(), make_model().requires_grad_(False))


@pytest.fixture
def on_cuda(monkeypatch):
    """Parameters that say that they are on a GPU."""
    model = make_model()
    monkeypatch.setattr(nn.Parameter, "device", torch.device("cuda"), raising=False)
    return model


class ApexSGD(torch.optim.SGD):
    """Takes what apex's class takes: no ``fused``, and no argument of zero_grad."""

    def __init__(self, params, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov)


def test_apex_is_used_when_asked_for(on_cuda, monkeypatch):
    for name in ("apex", "apex.optimizers"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(FusedSGD=ApexSGD))
    optimizer = make_optimizer(make_cfg(FUSED_SGD="apex"), on_cuda)
    assert type(optimizer) is ApexSGD
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.02, 1e-4), (0.04, 0)]
    assert type(make_optimizer(make_cfg(), make_model())) is EagerSGD


def test_apex_that_is_not_there_is_said(on_cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    with pytest.raises(ValueError, match=r"SOLVER.FUSED_SGD is apex, but .* set SOLVER.FUSED_SGD to torch"):
        make_optimizer(make_cfg(FUSED_SGD="apex"), on_cuda)

    def unbuilt(*args, **options):
        raise RuntimeError("apex.optimizers.FusedSGD requires cuda extensions")

    for name in ("apex", "apex.optimizers"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(FusedSGD=unbuilt))
    with pytest.raises(ValueError, match=r"requires cuda extensions.* set SOLVER.FUSED_SGD to torch"):
        make_optimizer(make_cfg(FUSED_SGD="apex"), on_cuda)


@pytest.mark.parametrize(("name", "kind"), [("Adam", EagerAdam), ("AdamW", EagerAdamW)])
def test_adam_has_the_groups_of_sgd_and_its_own_settings(name, kind):
    optimizer = make_optimizer(make_cfg(OPTIMIZER=name, BETAS=(0.8, 0.99)), make_model())
    assert type(optimizer) is kind
    groups = [(group["lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups]
    assert groups == [(0.02, 1e-4, (0.8, 0.99)), (0.04, 0, (0.8, 0.99))]


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_steps_of_adam_are_pytorch_s(name):
    ours, theirs = make_model(), make_model()
    optimizers = [make_optimizer(make_cfg(OPTIMIZER=name), ours)]
    grouped = {"weight": [], "bias": []}
    for parameter_name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            grouped[parameter_name.rpartition(".")[2]].append(parameter)
    groups = [
        {"params": grouped["weight"], "lr": 0.02, "weight_decay": 1e-4},
        {"params": grouped["bias"], "lr": 0.04, "weight_decay": 0.0},
    ]
    optimizers.append(getattr(torch.optim, name)(groups, foreach=False))
    for step in range(5):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_state_of_another_optimizer_is_refused():
    model = make_model()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    saved = make_optimizer(make_cfg(), model).state_dict()
    with pytest.raises(ValueError, match=r"set SOLVER\.OPTIMIZER to what it was"):
        load_optimizer_state(make_optimizer(make_cfg(OPTIMIZER="Adam"), model), saved, trainable)


def test_other_optimizers_are_refused():
    with pytest.raises(ValueError, match=r"SOLVER\.OPTIMIZER must be one of SGD, Adam, AdamW, got 'LAMB'"):
        make_optimizer(make_cfg(OPTIMIZER="LAMB"), make_model())
    with pytest.raises(ValueError, match="needs CUDA; set it to torch"):
        make_optimizer(make_cfg(FUSED_SGD="apex"), make_model())
    with pytest.raises(ValueError, match="one of torch, apex, got 'adam'"):
        make_optimizer(make_cfg(FUSED_SGD="adam"), make_model())


def test_steps_equal_the_published_one_group_per_parameter():
    model, published = make_model(), make_model()
    optimizer = make_optimizer(make_cfg(), model)
    groups = []
    for name, parameter in published.named_parameters():
        if parameter.requires_grad:
            is_bias = "bias" in name
            groups.append(
                {"params": [parameter], "lr": 0.04 if is_bias else 0.02, "weight_decay": 0 if is_bias else 1e-4}
            )
    other = torch.optim.SGD(groups, lr=0.02, momentum=0.9, foreach=False)
    for step in range(3):
        for net, opt in ((model, optimizer), (published, other)):
            opt.zero_grad()
            torch.manual_seed(step)
            sum((p * torch.randn_like(p)).sum() for p in net.parameters() if p.requires_grad).backward()
            opt.step()
    for left, right in zip(model.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "factor", "expected"),
    [
        # by hand: base 0.02, 4 warm-up steps, milestones 6 and 8
        ("linear", 0.5, [0.01, 0.0125, 0.015, 0.0175, 0.02, 0.02, 0.002, 0.002, 0.0002]),
        ("constant", 0.5, [0.01, 0.01, 0.01, 0.01, 0.02, 0.02, 0.002, 0.002, 0.0002]),
        ("mlperf_linear", 0.004, [0.004, 0.008, 0.012, 0.016, 0.02, 0.02, 0.002, 0.002, 0.0002]),
        ("mlperf_linear", 0.01, [0.0, 0.0, 0.0, 0.01, 0.02, 0.02, 0.002, 0.002, 0.0002]),
    ],
)
def test_schedules(method, factor, expected):
    cfg = make_cfg(WARMUP_METHOD=method, WARMUP_FACTOR=factor)
    optimizer = make_optimizer(cfg, make_model())
    found = rates(make_lr_scheduler(cfg, optimizer), optimizer, len(expected))
    assert [pair[0] for pair in found] == pytest.approx(expected, abs=1e-12)
    if method != "mlperf_linear":
        assert [pair[1] for pair in found] == pytest.approx([2 * rate for rate in expected], abs=1e-12)


def test_milestones_inside_the_warm_up_also_count():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = WarmupMultiStepLR(optimizer, (2,), 0.1, warmup_factor=0.0, warmup_iters=4)
    assert [pair[0] for pair in rates(scheduler, optimizer, 5)] == pytest.approx([0.0, 0.25, 0.05, 0.075, 0.1])


@pytest.mark.parametrize(
    ("changes", "words"), [({"STEPS": (8, 6)}, r"\(8, 6\)"), ({"WARMUP_METHOD": "cosine"}, "cosine")]
)
def test_bad_schedules_are_named(changes, words):
    cfg = make_cfg(**changes)
    with pytest.raises(ValueError, match=words):
        make_lr_scheduler(cfg, make_optimizer(cfg, make_model()))


def test_resumed_schedule_continues_and_takes_its_shape_from_the_config():
    cfg = make_cfg()
    optimizer = make_optimizer(cfg, make_model())
    whole = rates(make_lr_scheduler(cfg, optimizer), optimizer, 9)
    # What a published checkpoint holds: its whole __dict__, with one base rate a parameter and its own milestones.
    published = {"last_epoch": 5, "base_lrs": [0.5] * 6, "milestones": (1, 2), "gamma": 0.9, "_step_count": 6}
    optimizer = make_optimizer(cfg, make_model())
    scheduler = make_lr_scheduler(cfg, optimizer)
    scheduler.load_state_dict(published)
    assert rates(scheduler, optimizer, 4) == whole[5:]


def test_published_momentum_loads_into_our_groups():
    model, published = make_model(), make_model()
    other = torch.optim.SGD([{"params": [p]} for p in published.parameters() if p.requires_grad], lr=1.0, momentum=0.9)
    sum((p * index).sum() for index, p in enumerate(published.parameters()) if p.requires_grad).backward()
    other.step()
    optimizer = make_optimizer(make_cfg(), model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    load_optimizer_state(optimizer, other.state_dict(), trainable)
    for index, parameter in enumerate(trainable):
        assert (optimizer.state[parameter]["momentum_buffer"] == index).all()
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.04]


def test_optimizer_of_another_model_is_refused():
    optimizer = make_optimizer(make_cfg(), make_model())
    small = nn.Linear(2, 2)
    state = torch.optim.SGD(small.parameters(), lr=1.0, momentum=0.9).state_dict()
    with pytest.raises(ValueError, match="2 parameters, this one 6"):
        load_optimizer_state(optimizer, state, list(small.parameters()))


def test_a_first_step_that_the_loss_scaler_skips_leaves_no_trace():
    model, reference = make_model(), make_model()
    optimizer = make_optimizer(make_cfg(BIAS_LR_FACTOR=1, WEIGHT_DECAY=0.0), model)
    assert optimizer.defaults["fused"]
    plain = torch.optim.SGD([p for p in reference.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(3):
        for net, opt in ((model, optimizer), (reference, plain)):
            opt.zero_grad()
            loss = sum(parameter.square().sum() for parameter in net.parameters() if parameter.requires_grad)
            if net is model:
                scaler.scale(loss * (float("inf") if step == 0 else 1.0)).backward()
                scaler.step(opt)
                scaler.update()
            elif step > 0:
                loss.backward()
                opt.step()
    for left, right in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
