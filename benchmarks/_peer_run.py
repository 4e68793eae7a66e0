"""What the training runs of all peers share: the same work as ours, and nothing against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.benchmark_network import put_on_objects
from maskrcnn_benchmark.apps.benchmark_run import TrainingRun
from maskrcnn_benchmark.data.synthetic_batches import SyntheticLoader, make_synthetic_loader
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.structures.targets import Targets

DISTINCT_BATCHES = 4
Run = TypeVar("Run", bound=TrainingRun)


def lay_on_objects(boxes: Tensor, objects: Tensor, positives: int) -> Tensor:
    """An image's proposals [R, 4] of which as many lie over its objects [G, 4] as `put_on_objects` lays for ours."""
    labels = torch.ones((1, len(objects)), dtype=torch.int64, device=objects.device)
    proposals = Proposals(boxes[None], boxes.new_zeros(1, len(boxes)), labels.new_ones(1, len(boxes)).bool())
    return put_on_objects(proposals, Targets(objects[None], labels, None, []), positives).boxes[0]


def build_peer_run(
    kind: type[Run],
    cfg: CfgNode,
    model: nn.Module,
    precision: Precision,
    device: torch.device,
    as_target: Callable[[Any], Any],
    *,
    image_size: tuple[int, int],
    length: int,
) -> Run:
    """A training run of a peer's network on the batches of ours.

    In its favour the batches lie on the device before the first step, and the update is torch's fused SGD.

    Args:
        kind: the class of the run.
        cfg: as for ours.
        model: on the device already.
        precision: in which the images are placed and the step runs.
        device: where it runs.
        as_target: from a BoxList to what the peer takes.
        image_size: (height, width) of every image.
        length: steps that there will be.
    """
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=cfg.SOLVER.BASE_LR,
        momentum=cfg.SOLVER.MOMENTUM,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        fused=True,
    )
    loader = make_synthetic_loader(
        cfg,
        is_train=True,
        num_images=cfg.SOLVER.IMS_PER_BATCH,
        length=DISTINCT_BATCHES,
        num_batches=DISTINCT_BATCHES,
        image_size=image_size,
    )
    batches = [
        (precision.place_images(images, device), [as_target(each) for each in targets], indices)
        for images, targets, indices in loader
    ]
    return kind(
        TrainStep(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), precision),
        SyntheticLoader(batches, length),
        model,
        captured=False,
        seed=cfg.SEED,
        log_period=cfg.SOLVER.LOG_PERIOD,
    )
