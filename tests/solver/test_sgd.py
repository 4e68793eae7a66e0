"""The optimiser beside PyTorch's own: the same bits, the same states, without the compiler."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.solver.eager import EagerSGD


def make_parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 5), (7,), (2, 2))]


def make_optimizer(kind, parameters, **options):
    groups = [{"params": parameters[:1], "weight_decay": 1e-2}, {"params": parameters[1:], "lr": 0.2}]
    return kind(groups, lr=0.1, momentum=0.9, **options)


def run_steps(optimizer, parameters, *, seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        for parameter in parameters[:-1]:  # the last one never has a gradient
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": False}, {"nesterov": True}])
def test_the_same_bits_as_pytorchs(options):
    ours, theirs = make_parameters(), make_parameters()
    for kind, parameters in ((EagerSGD, ours), (torch.optim.SGD, theirs)):
        run_steps(make_optimizer(kind, parameters, **options), parameters, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], make_parameters()[0])


def test_states_fit_both():
    parameters = [make_parameters(), make_parameters()]
    first, second = (
        make_optimizer(kind, own) for kind, own in zip((EagerSGD, torch.optim.SGD), parameters, strict=True)
    )
    run_steps(first, parameters[0], seed=1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for own, former in zip(parameters[1], parameters[0], strict=True):
        own.data.copy_(former.data)
    back = make_optimizer(EagerSGD, parameters[0])
    back.load_state_dict(copy.deepcopy(second.state_dict()))
    run_steps(second, parameters[1], seed=2)
    run_steps(back, parameters[0], seed=2)
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))


def test_a_step_is_not_recorded_and_calls_its_hooks():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer, called = EagerSGD([parameter], lr=1.0), []
    optimizer.register_step_post_hook(lambda *_: called.append(torch.is_grad_enabled()))
    loss = optimizer.step(lambda: (parameter.sum().backward(), parameter.sum())[1])
    assert loss.requires_grad  # a closure records
    assert parameter.grad_fn is None
    assert torch.equal(parameter.detach(), torch.zeros(2))
    assert called == [True]


def test_the_compiler_is_not_imported():
    code = """
import sys, torch
from maskrcnn_benchmark.solver.eager import EagerSGD
parameter = torch.nn.Parameter(torch.ones(2))
optimizer = EagerSGD([{"params": [parameter]}], lr=0.1, momentum=0.9, fused=True)
parameter.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
