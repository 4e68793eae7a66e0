"""torchvision's Mask R-CNN R-50-FPN behind the interface of our training run, for comparisons on the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.benchmark_network import put_on_objects
from maskrcnn_benchmark.apps.benchmark_run import TrainingRun
from maskrcnn_benchmark.data.synthetic_batches import SyntheticLoader, make_synthetic_loader
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.stages import StageRecorder
from maskrcnn_benchmark.engine.step import TrainStep
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets

DISTINCT_BATCHES = 4


class TorchvisionDetector(nn.Module):
    """The network of torchvision's ``maskrcnn_resnet50_fpn`` with frozen norms, called as ours is.

    Args:
        num_classes: with background.
        positives: positive regions of an image, laid over the objects as `put_on_objects` does it for ours.
    """

    def __init__(self, num_classes: int, *, positives: int) -> None:
        from torchvision.models.detection import MaskRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
        from torchvision.ops import FrozenBatchNorm2d

        super().__init__()
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
        )
        # The images come resized and normalised: its own transform has to batch them only.
        self.network = MaskRCNN(backbone, num_classes, image_mean=[0.0] * 3, image_std=[1.0] * 3, _skip_resize=True)
        self.positives = positives
        add_objects = self.network.roi_heads.add_gt_proposals
        self.network.roi_heads.add_gt_proposals = lambda proposals, objects: add_objects(
            [self._with_positives(*pair) for pair in zip(proposals, objects, strict=True)], objects
        )

    def _with_positives(self, boxes: Tensor, objects: Tensor) -> Tensor:
        labels = torch.ones((1, len(objects)), dtype=torch.int64, device=objects.device)
        proposals = Proposals(boxes[None], boxes.new_zeros(1, len(boxes)), labels.new_ones(1, len(boxes)).bool())
        return put_on_objects(proposals, Targets(objects[None], labels, None, []), self.positives).boxes[0]

    def forward(self, images: ImageList, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of a batch of images of one size."""
        return self.network(list(images.tensors), list(targets))


class TorchvisionRun(TrainingRun):
    """Training steps of `TorchvisionDetector`."""

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages of the steps from now on, under the names of ours."""
        from torchvision.models.detection import roi_heads as heads_module

        self.recorder = recorder
        network = self.model.network
        rpn, heads = network.rpn, network.roi_heads
        recorder.watch_module(network.backbone.body, "backbone")
        recorder.watch_module(network.backbone.fpn, "fpn")
        recorder.watch_module(rpn.head, "rpn_head")
        recorder.watch_call(rpn, "filter_proposals", "proposals")
        recorder.watch_call(rpn, "assign_targets_to_anchors", "rpn_loss")
        recorder.watch_call(rpn, "compute_loss", "rpn_loss")
        recorder.watch_call(heads, "select_training_samples", "box_head", observe=self._count_positives)
        for part in (heads.box_roi_pool, heads.box_head, heads.box_predictor):
            recorder.watch_module(part, "box_head")
        recorder.watch_call(heads_module, "fastrcnn_loss", "box_head")
        for part in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor):
            recorder.watch_module(part, "mask_head")
        recorder.watch_call(heads_module, "maskrcnn_loss", "mask_head")
        recorder.watch_backward(self.train_step.model, self.train_step.optimizer)

    def _count_positives(self, samples: Any) -> None:
        self.region_counts.append(sum((labels > 0).sum() for labels in samples[2]))


def build_torchvision_run(
    cfg: CfgNode,
    device: torch.device,
    *,
    image_size: tuple[int, int],
    positives: int,
    length: int,
) -> TorchvisionRun:
    """A training run of torchvision's network in the number format and layout of a config.

    In its favour the batches lie on the device, normalised, before the first step, and the update is torch's fused SGD.

    Args:
        cfg: as for ours.
        device: where it runs.
        image_size: (height, width) of every image.
        positives: see `TorchvisionDetector`.
        length: steps that there will be.
    """
    torch.manual_seed(cfg.SEED)
    precision = Precision.from_config(cfg, device)
    model = TorchvisionDetector(cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, positives=positives)
    for name, buffer in model.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.2)  # as `settle_activations` does it for ours
    precision.place_model(model, device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        parameters,
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
        (precision.place_images(images, device), [as_dict(each, device) for each in targets], indices)
        for images, targets, indices in loader
    ]
    return TorchvisionRun(
        TrainStep(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), precision),
        SyntheticLoader(batches, length),
        model,
        captured=False,
        seed=cfg.SEED,
        log_period=cfg.SOLVER.LOG_PERIOD,
    )


def as_dict(boxlist: Any, device: torch.device) -> dict[str, Tensor]:
    """The objects of an image as torchvision takes them: boxes, labels and bitmaps."""
    masks = boxlist.get_field("masks").convert("mask").instances.masks
    entries = {"boxes": boxlist.bbox, "labels": boxlist.get_field("labels"), "masks": masks.to(torch.uint8)}
    return {name: tensor.to(device) for name, tensor in entries.items()}
