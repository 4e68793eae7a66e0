"""What test_three_processes starts in each process: a run, and the same run stopped and taken up half-way."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.utils import comm

CPU = torch.device("cpu")


def make_model(state=None):
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Linear(256, 256), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    model.load_state_dict(state or model.state_dict())
    return model


def steps(model, first, last):
    """Weights after the steps; each process has data of its own."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = wrap_model(model, CPU)
    for iteration in range(first, last):
        seed_step(0, iteration, comm.get_rank())
        wrapped(torch.randn(8, 256)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    comm.init_process_group(CPU)
    whole = steps(make_model(), 0, 6)
    resumed = steps(make_model(steps(make_model(), 0, 3)), 3, 6)
    if comm.is_main_process():
        torch.save({"whole": whole, "resumed": resumed}, Path(sys.argv[1]) / "weights.pth")
    comm.synchronize()
    comm.destroy_process_group()
