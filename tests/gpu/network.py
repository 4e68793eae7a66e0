"""A small network and its batches for the tests on a GPU, where nothing hangs on the choice of samples."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark import ops
from maskrcnn_benchmark.engine.capture import capture_trunk
from maskrcnn_benchmark.engine.precision import choose_dtype
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.solver import make_optimizer
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets
from tests.modeling.test_detector import build, make_batch, make_cfg

DEVICE = torch.device("cuda")
SHAPES = ((96, 128), (128, 96))
# All candidates are taken, so that a rounding that changes their order changes no sample.
EVERYTHING = {"MODEL__RPN__BATCH_SIZE_PER_IMAGE": 10**6, "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 10**6}
FIXED = {"MODEL__ROI_MASK_HEAD__FIXED_SLOTS": True}
# The ops of a training step; a plain kernel of one of them reads values back.
STEP_OPS = ("batched_nms", "match_boxes", "roi_align", "roi_align_backward", "polygon_mask_targets")


def plain_ops(device=DEVICE):
    """Which ops of a step have no compiled kernel on the device."""
    kernels = ops.backend_info()["kernels"]
    return [name for name in STEP_OPS if kernels[name][device.type] == "plain"]


def make_batches(device=DEVICE):
    """Landscape twice, portrait, and one of a shape that is not captured, on the device."""
    images, boxlists = make_batch()
    images.tensors *= 0.02  # what comes out of an untrained network then fits into float16
    targets = Targets.from_boxlists(boxlists)
    turned = ImageList(images.tensors.transpose(2, 3).contiguous(), [(w, h) for h, w in images.image_sizes])
    wide = ImageList(nn.functional.pad(images.tensors, (0, 32)), images.image_sizes)
    return [(each.to(device), targets.to(device)) for each in (images, images, turned, wide)]


class Trainer:
    """A network with its optimiser, ready to take steps.

    Args:
        precision: of the steps.
        capture: how the trunk runs.
        options: keys of the config, and accumulate_steps and max_grad_norm of TrainStep.
    """

    def __init__(self, precision, *, capture="eager", device=DEVICE, step_options=None, **options):
        if device.type == "cuda" and precision.dtype == torch.float32:
            choose_dtype("float32", device)
        self.device, self.precision = device, precision
        self.model = precision.place_model(build(**options), device)
        capture_trunk(self.model, capture, shapes=SHAPES, num_images=2, precision=precision, device=device)
        optimizer = make_optimizer(make_cfg(SOLVER__BASE_LR=1e-4), self.model)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        self.step = TrainStep(self.model.train(), optimizer, scheduler, precision, **(step_options or {}))
        self.step.clear_gradients()
        self.iteration = 0

    def take(self, batch):
        """One step; gives its losses."""
        self.iteration += 1
        seed_step(0, self.iteration, 0)
        images, targets = batch
        return self.step(self.precision.place_images(images, self.device), targets, iteration=self.iteration)

    def run(self, steps=None):
        """Steps over all batches; gives the losses of each and the weights, on the CPU."""
        losses = []
        for batch in make_batches(self.device)[:steps]:
            losses.append({name: loss.item() for name, loss in self.take(batch).items()})
        return losses, {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
