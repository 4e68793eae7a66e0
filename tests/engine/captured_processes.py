"""What test_capture starts in each of two processes: steps of the network as it is, and of its record."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.utils import comm
from tests.engine.graphs_on_cpu import GraphsOnCpu
from tests.engine.test_capture import CPU, batches, record
from tests.modeling.test_detector import build


def weights_after_steps(*, captured, accumulate_steps):
    """Each process takes other samples of the same images."""
    model = build()
    if captured:
        record(model)
    wrapped = wrap_model(model, CPU)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    step = TrainStep(wrapped.train(), optimizer, scheduler, Precision("cpu"), accumulate_steps=accumulate_steps)
    step.clear_gradients()
    for iteration, batch in enumerate(batches(), 1):
        torch.manual_seed(10 * iteration + comm.get_rank())
        step(*batch, iteration=iteration)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.cuda.make_graphed_callables = GraphsOnCpu()
    torch.cuda.graph_pool_handle = lambda: "pool"
    comm.init_process_group(CPU)
    found = {
        (captured, steps): weights_after_steps(captured=captured, accumulate_steps=steps)
        for captured in (False, True)
        for steps in (1, 2)
    }
    torch.save(found, Path(sys.argv[1]) / f"rank{comm.get_rank()}.pth")
    comm.synchronize()
    comm.destroy_process_group()
