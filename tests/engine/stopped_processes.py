"""What test_signals starts in each of two processes; one is told to stop. The outcome goes to FOLDER/rank<N>.pth."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.signals import Interrupted, StopSignals
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.utils import comm
from tests.engine.stand_ins import RecordingSink, TinyLoader, make_run

CPU = torch.device("cpu")


class SignalledLoader(TinyLoader):
    """Signals the second process while it waits for the batch of iteration ``at``."""

    at = 0

    def __iter__(self):
        for iteration, batch in enumerate(super().__iter__(), self.start_iter + 1):
            if iteration == self.at and comm.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def train(folder, *, at=0, norm=False, **options):
    """Train on to iteration 12; gives weights, figures and, where the run was stopped, after which iteration.

    With ``norm`` a batch norm keeps running statistics, which each process updates by itself.
    """
    model, optimizer, scheduler, checkpointer = make_run(folder, noise=0.5)
    if norm:
        model.layer = torch.nn.Sequential(torch.nn.BatchNorm1d(3, affine=False), model.layer)
    checkpointer.save_to_disk = comm.is_main_process()
    arguments = {"iteration": 0, **checkpointer.load()}
    rank = comm.get_rank()
    start = arguments["iteration"]
    loader = SignalledLoader(12, batch_size=2, size=48, offset=rank, stride=2, start_iter=start)
    loader.at = at
    sink, stopped = RecordingSink(), None
    with StopSignals() as stop:
        try:
            with stop.deferred():
                do_train(
                    wrap_model(model, CPU), loader, optimizer, scheduler, checkpointer, CPU, 100, arguments,
                    sink=sink, stop=stop, log_period=5, **options,
                )  # fmt: skip
        except Interrupted as reason:
            stopped = (arguments["iteration"], reason.name)
    losses = [(step, text["loss"]) for step, _, text in sink.rows]
    return {
        "weights": torch.cat([parameter.detach().flatten() for parameter in model.parameters()]),
        "losses": losses,
        "stopped": stopped,
    }


def main(folder):
    comm.init_process_group(CPU)
    outcome = {}
    accumulation = {"accumulate_steps": 4}
    for name, options in (("plain", {}), ("accumulated", accumulation), ("norm", {"norm": True, **accumulation})):
        outcome[name] = {
            "whole": train(folder / f"{name}_whole", **options),
            "first": train(folder / name, at=4, **options),
            "second": train(folder / name, **options),
        }
    torch.save(outcome, folder / f"rank{comm.get_rank()}.pth")
    comm.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
