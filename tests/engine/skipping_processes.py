"""What test_nonfinite starts in each of two processes; the outcome goes to FOLDER/rank<N>.pth."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

from maskrcnn_benchmark.engine.distributed import wrap_model
from maskrcnn_benchmark.engine.failures import FailureOptions
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.utils import comm
from tests.engine.stand_ins import TinyDetector, TinyLoader, make_run

CPU = torch.device("cpu")


class Told(logging.Handler):
    """Keeps what is said of skipped updates."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        if "skipped" in record.getMessage():
            self.lines.append(record.getMessage())


class WithoutGradient(TinyDetector):
    """A third loss, which is infinite where a target is above 100, and has no gradient: only its process sees it."""

    def forward(self, images, targets=None):
        losses = super().forward(images, targets)
        return losses | {"loss_three": torch.where(targets.values > 100, torch.inf, 0.0).sum()}


def train(folder, value, *, kind=TinyDetector, **options):
    """Each process sees every other batch of one image; the target of process 1 in iteration 3 is ``value``."""
    model, optimizer, scheduler, _ = make_run(folder)
    model.__class__ = kind
    model = wrap_model(model, CPU)
    loader = TinyLoader(6, batch_size=1, size=24, offset=comm.get_rank(), stride=2)
    loader.dataset.values[5] = value
    arguments = {"iteration": 0}
    do_train(model, loader, optimizer, scheduler, None, CPU, 0, arguments, **options)
    return model, arguments


def plain(folder):
    """One process with both images, which leaves the third update out."""
    model, optimizer, scheduler, _ = make_run(folder)
    for iteration, (images, targets, _) in enumerate(TinyLoader(6, batch_size=2, size=24), 1):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        if iteration != 3:
            optimizer.step()
        scheduler.step()
    return model


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def main(folder):
    comm.init_process_group(CPU)
    told = Told()
    logging.getLogger("maskrcnn_benchmark").addHandler(told)
    skip = FailureOptions(nonfinite="skip")
    model, arguments = train(folder, float("nan"), failures=skip)
    outcome = {
        "weights": flat(model),
        "plain": flat(plain(folder)),
        "skips": arguments["skips"],
        "told": list(told.lines),
    }
    outcome["without_gradient"] = flat(train(folder, 101.0, kind=WithoutGradient, failures=skip)[0])
    try:
        train(folder, float("nan"))
    except FloatingPointError as error:
        outcome["stopped"] = str(error)
    torch.save(outcome, folder / f"rank{comm.get_rank()}.pth")
    comm.synchronize()
    comm.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
