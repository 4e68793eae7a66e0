"""torchvision's Mask R-CNN R-50-FPN behind the interface of our runs, for comparisons at the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from benchmarks._peer_run import build_peer_run, lay_on_objects
from maskrcnn_benchmark.apps.benchmark_network import settle_activations, sharpen_predictor
from maskrcnn_benchmark.apps.benchmark_run import TrainingRun
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.stages import StageRecorder
from maskrcnn_benchmark.structures.image_list import ImageList


def build_network(num_classes: int, **options: Any) -> nn.Module:
    """What ``maskrcnn_resnet50_fpn`` gives with pretrained weights, norms frozen, but random and without resizing."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    network = MaskRCNN(backbone, num_classes, **options)
    network.transform.resize = lambda image, target: (image, target)
    return network


class TorchvisionDetector(nn.Module):
    """The network of torchvision's ``maskrcnn_resnet50_fpn`` with frozen norms, called as ours is.

    Args:
        num_classes: with background.
        positives: positive regions of an image, laid over the objects as `put_on_objects` does it for ours.
    """

    def __init__(self, num_classes: int, *, positives: int) -> None:
        super().__init__()
        # The images come normalised.
        self.network = build_network(num_classes, image_mean=[0.0] * 3, image_std=[1.0] * 3)
        add_objects = self.network.roi_heads.add_gt_proposals
        self.network.roi_heads.add_gt_proposals = lambda proposals, objects: add_objects(
            [lay_on_objects(*pair, positives) for pair in zip(proposals, objects, strict=True)], objects
        )

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
        watch_network(recorder, network)
        recorder.watch_call(rpn, "assign_targets_to_anchors", "rpn_loss")
        recorder.watch_call(rpn, "compute_loss", "rpn_loss")
        recorder.watch_call(heads, "select_training_samples", "box_head", observe=self._count_positives)
        recorder.watch_call(heads_module, "fastrcnn_loss", "box_head")
        recorder.watch_call(heads_module, "maskrcnn_loss", "mask_head")
        recorder.watch_backward(self.train_step.model, self.train_step.optimizer)

    def _count_positives(self, samples: Any) -> None:
        self.region_counts.append(sum((labels > 0).sum() for labels in samples[2]))


def watch_network(recorder: StageRecorder, network: Any) -> None:
    """Make stages, under the names of ours, of what training and inference share."""
    rpn, heads = network.rpn, network.roi_heads
    recorder.watch_module(network.backbone.body, "backbone")
    recorder.watch_module(network.backbone.fpn, "fpn")
    recorder.watch_module(rpn.head, "rpn_head")
    recorder.watch_call(rpn, "filter_proposals", "proposals")
    for part in (heads.box_roi_pool, heads.box_head, heads.box_predictor):
        recorder.watch_module(part, "box_head")
    for part in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor):
        recorder.watch_module(part, "mask_head")


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
    settle_activations(model)
    precision.place_model(model, device)
    return build_peer_run(
        TorchvisionRun,
        cfg,
        model,
        precision,
        device,
        lambda target: as_dict(target, device),
        image_size=image_size,
        length=length,
    )


def as_dict(boxlist: Any, device: torch.device) -> dict[str, Tensor]:
    """The objects of an image as torchvision takes them: boxes, labels and bitmaps."""
    masks = boxlist.get_field("masks").convert("mask").instances.masks
    entries = {"boxes": boxlist.bbox, "labels": boxlist.get_field("labels"), "masks": masks.to(torch.uint8)}
    return {name: tensor.to(device) for name, tensor in entries.items()}


class TorchvisionPictures:
    """Detection on a picture by torchvision's network, from pixels to masks of the picture's size.

    In its favour the picture is not resized, which its transform does even where the size is right, and the masks'
    probabilities are not compared with a threshold.

    Args:
        cfg: SEED and the number of classes are read.
        picture: uint8 [H, W, 3] in BGR, on which the random network is made to detect as a trained one does.
    """

    def __init__(self, cfg: CfgNode, picture: np.ndarray) -> None:
        torch.manual_seed(cfg.SEED)
        self.network = build_network(cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES).eval()
        settle_activations(self.network)
        sharpen_predictor(self.network.roi_heads.box_predictor, lambda: self.detect(picture))

    def read(self, picture: np.ndarray) -> Tensor:
        """The picture as the network takes it: [3, H, W], RGB, 0 to 1."""
        return torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1).float() / 255

    @torch.inference_mode()
    def detect(self, picture: np.ndarray) -> int:
        """The number of detections."""
        return len(self.network([self.read(picture)])[0]["masks"])

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages, under the names of ours."""
        from torchvision.models.detection import roi_heads as heads_module
        from torchvision.models.detection import transform as transform_module

        network, heads = self.network, self.network.roi_heads
        recorder.watch_call(self, "read", "data")
        recorder.watch_module(network.transform, "data")
        watch_network(recorder, network)
        recorder.watch_call(heads, "postprocess_detections", "box_head")
        recorder.watch_call(heads_module, "maskrcnn_inference", "mask_head")
        recorder.watch_call(transform_module, "paste_masks_in_image", "paste")
