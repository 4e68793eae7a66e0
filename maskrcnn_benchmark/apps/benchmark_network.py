"""What a benchmark does to a network: make a random one behave like a trained one, watch its stages, count its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_benchmark.engine.stages import OTHER, FlopClock, StageRecorder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.rpn import rpn as rpn_module
from maskrcnn_benchmark.structures.targets import Targets

# The stages of a step in their order; "trunk" stands for the three after it where they are captured as one.
STAGES = (
    "data", "trunk", "backbone", "fpn", "rpn_head", "rpn_loss", "proposals", "box_head", "mask_head", "keypoint_head",
    "backward", "optimizer", OTHER,
)  # fmt: skip
_FURTHER = ("mask_head", "keypoint_head")
_SHIFT = 0.08  # of a box's sides; the IoU with the object stays above 0.7
_LOGIT_DEVIATION = 3.0  # of 81 classes, about 4 are then above a score of 0.05


def settle_activations(model: nn.Module) -> None:
    """Keep the activations of a random network in the range of a trained one, also for float16.

    A frozen norm that scales by one lets the sum of each residual block grow.
    """
    for name, buffer in model.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.2)


def put_on_objects(proposals: Proposals, targets: Targets, count: int) -> Proposals:
    """Lay the last of the proposals over the objects, so that `count` regions of an image are positive.

    A trained RPN gives several proposals to each object, a random one hardly any. The objects themselves are positives
    too, so as many fewer are laid. Shapes stay, and the host does not wait for the device.
    """
    num_objects = targets.valid.sum(1, keepdim=True)  # [N, 1]
    num_slots = min(count, proposals.boxes.shape[1])
    if not targets.boxes.shape[1] or not num_slots:
        return proposals
    slot = torch.arange(num_slots, device=num_objects.device)
    objects = slot % num_objects.clamp(min=1)  # [N, slots]: in turn
    chosen = targets.boxes.gather(1, objects[..., None].expand(-1, -1, 4))
    # to the left and to the right, up and down, in turn
    signs = torch.stack((slot % 2, slot // 2 % 2), dim=1) * 2 - 1
    shift = (chosen[..., 2:] - chosen[..., :2]) * _SHIFT * signs
    used = slot < count - num_objects
    used &= num_objects > 0
    boxes, valid = proposals.boxes.clone(), proposals.valid.clone()
    boxes[:, -num_slots:] = torch.where(used[..., None], chosen + shift.repeat(1, 1, 2), boxes[:, -num_slots:])
    valid[:, -num_slots:] |= used
    return Proposals(boxes, proposals.scores, valid)


def give_positives(model: Any, count: int) -> None:
    """Let `put_on_objects` come before the heads in each training step of a model."""
    heads = model.roi_heads
    if heads is None or not count:
        return
    losses = heads.losses

    def losses_with_positives(features: Sequence[Tensor], proposals: Proposals, targets: Targets) -> dict[str, Tensor]:
        return losses(features, put_on_objects(proposals, targets, count), targets)

    heads.losses = losses_with_positives


def sharpen_classes(model: Any, run: Callable[[], Any]) -> None:
    """Scale the class logits of a random network so that it detects as much as a trained one.

    Args:
        model: in evaluation mode.
        run: a forward pass of it.
    """
    if model.roi_heads is not None:
        sharpen_predictor(model.roi_heads.box.predictor, run)


@torch.no_grad()
def sharpen_predictor(predictor: Any, run: Callable[[], Any]) -> None:
    """What `sharpen_classes` does, to a module with a layer cls_score that returns the class logits first."""
    seen: list[Tensor] = []
    hook = predictor.register_forward_hook(lambda _, __, outputs: seen.append(outputs[0].float().std()))
    try:
        run()
    finally:
        hook.remove()
    predictor.cls_score.weight *= _LOGIT_DEVIATION / seen[0].clamp(min=1e-6)


def watch_network(
    recorder: StageRecorder, model: Any, *, captured: bool = False, on_regions: Callable[[Any], None] | None = None
) -> None:
    """Make stages of the parts of a GeneralizedRCNN.

    Args:
        recorder: gets them.
        model: not wrapped.
        captured: the trunk runs as one piece, which hooks cannot look into.
        on_regions: is given the sampled regions of each training step.
    """
    if captured:
        recorder.watch_call(model, "_run_trunk", "trunk")
    else:
        pyramid = getattr(model.backbone, "fpn", None)
        recorder.watch_module(model.backbone if pyramid is None else model.backbone.body, "backbone")
        if pyramid is not None:
            recorder.watch_module(pyramid, "fpn")
        recorder.watch_module(model.rpn.head, "rpn_head")
    recorder.watch_call(rpn_module, "rpn_losses", "rpn_loss")
    recorder.watch_call(rpn_module, "select_proposals", "proposals")
    heads = model.roi_heads
    if heads is None:
        return
    observe = None if on_regions is None else lambda result: on_regions(result[0])
    recorder.watch_call(heads.box, "losses", "box_head", observe=observe)
    recorder.watch_call(heads.box, "detect", "box_head")
    for name, head in heads.further_heads().items():
        recorder.watch_call(head, "losses", f"{name}_head")
        recorder.watch_call(head, "add_fields", f"{name}_head")


@dataclass(frozen=True)
class FlopCount:
    """Operations of one counted step.

    Args:
        forward: of each stage's forward pass.
        total: of the step, backward pass included.
        pixels: of the padded batch.
        regions: positives in training, detections otherwise.
        passes: forward passes that the heads' work amounts to: 3 with a backward pass, which takes twice as much.
        mask_follows_regions: whether the further heads' work is proportional to the regions, or always the same.
    """

    forward: dict[str, float]
    total: float
    pixels: int
    regions: int
    passes: int = 1
    mask_follows_regions: bool = True

    def of_step(self, *, pixels: float, regions: float) -> float:
        """Operations of a like step with another number of pixels and of the further heads' regions."""
        box = self.passes * self.forward.get("box_head", 0.0)
        further = self.passes * sum(self.forward.get(name, 0.0) for name in _FURTHER)
        trunk = self.total - box - further
        if self.mask_follows_regions and self.regions:
            further *= regions / self.regions
        return trunk * pixels / self.pixels + box + further


def count_step(model: Any, step: Callable[[], int], *, pixels: int, backward: bool) -> FlopCount:
    """Count what one step of a model computes in convolutions and matrix products.

    Args:
        model: not captured, not wrapped.
        step: runs it on one batch; gives the number of detections.
        pixels: of the padded batch.
        backward: whether the step has a backward pass.
    """
    positives: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    recorder = StageRecorder(FlopClock(counter))
    watch_network(recorder, model, on_regions=lambda regions: positives.append((regions.labels > 0).sum()))
    try:
        with counter:
            recorder.begin_step()
            detections = step()
            recorder.end_step()
    finally:
        recorder.detach()
    (forward,) = recorder.read()
    total = counter.get_total_flops()
    forward.pop(OTHER)
    regions = int(sum(count.item() for count in positives)) if positives else detections
    has_slots = backward and getattr(getattr(model.roi_heads, "mask", None), "num_slots", None) is not None
    return FlopCount(forward, total, pixels, regions, 3 if backward else 1, not has_slots)
