"""detectron2's Mask R-CNN R-50-FPN behind the interface of our runs, for comparisons at the same work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from benchmarks._peer_run import build_peer_run, lay_on_objects
from maskrcnn_benchmark.apps.benchmark_network import sharpen_predictor
from maskrcnn_benchmark.apps.benchmark_run import TrainingRun
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.stages import StageRecorder
from maskrcnn_benchmark.structures.image_list import ImageList

_LEVELS = ["p2", "p3", "p4", "p5"]
# Its R-50-FPN configuration, with the numbers of proposals and samples that ours and torchvision's have.
_SETTINGS: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": [*_LEVELS, "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": _LEVELS,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}


def build_network(num_classes: int) -> nn.Module:
    """The random network; num_classes is with background, which detectron2 does not count."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_list([word for pair in _SETTINGS.items() for word in pair])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes - 1
    network = build_model(cfg)
    for name, buffer in network.named_buffers():
        if name.endswith("conv3.norm.weight"):
            buffer.fill_(0.2)  # as `settle_activations` does it for ours
    return network


class Detectron2Detector(nn.Module):
    """The network, called as ours is in training.

    Args:
        num_classes: with background.
        positives: positive regions of an image, laid over the objects as `put_on_objects` does it for ours.
    """

    def __init__(self, num_classes: int, *, positives: int) -> None:
        super().__init__()
        self.network = build_network(num_classes)
        self.network.pixel_mean.zero_()  # the images come normalised
        self.network.pixel_std.fill_(1.0)
        self.positives = positives
        sample = self.network.roi_heads.label_and_sample_proposals
        self.network.roi_heads.label_and_sample_proposals = lambda proposals, objects: sample(
            [self._with_positives(*pair) for pair in zip(proposals, objects, strict=True)], objects
        )

    def _with_positives(self, proposals: Any, objects: Any) -> Any:
        boxes = proposals.proposal_boxes.tensor
        proposals.proposal_boxes.tensor = lay_on_objects(boxes, objects.gt_boxes.tensor, self.positives)
        return proposals

    def forward(self, images: ImageList, targets: Sequence[Any]) -> dict[str, Tensor]:
        """The losses of a batch of images of one size."""
        from detectron2.utils.events import EventStorage

        with EventStorage():
            batch = zip(images.tensors, targets, strict=True)
            return self.network([{"image": image, "instances": instances} for image, instances in batch])


class Detectron2Run(TrainingRun):
    """Training steps of `Detectron2Detector`."""

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages of the steps from now on, under the names of ours."""
        self.recorder = recorder
        watch_network(recorder, self.model.network)
        heads, rpn = self.model.network.roi_heads, self.model.network.proposal_generator
        recorder.watch_call(rpn, "label_and_sample_anchors", "rpn_loss")
        recorder.watch_call(rpn, "losses", "rpn_loss")
        recorder.watch_call(heads, "label_and_sample_proposals", "box_head", observe=self._count_positives)
        recorder.watch_backward(self.train_step.model, self.train_step.optimizer)

    def _count_positives(self, samples: Any) -> None:
        classes = self.model.network.roi_heads.num_classes
        self.region_counts.append(sum((each.gt_classes < classes).sum() for each in samples))


def watch_network(recorder: StageRecorder, network: Any) -> None:
    """Make stages of what training and inference share."""
    backbone, heads = network.backbone, network.roi_heads
    recorder.watch_call(network, "preprocess_image", "data")
    recorder.watch_module(backbone.bottom_up, "backbone")
    for layer in (*backbone.lateral_convs, *backbone.output_convs):
        recorder.watch_module(layer, "fpn")
    recorder.watch_module(network.proposal_generator.rpn_head, "rpn_head")
    recorder.watch_call(network.proposal_generator, "predict_proposals", "proposals")
    recorder.watch_call(heads, "_forward_box", "box_head")
    recorder.watch_call(heads, "_forward_mask", "mask_head")


def build_detectron2_run(cfg: CfgNode, *, image_size: tuple[int, int], positives: int, length: int) -> Detectron2Run:
    """A training run on a CPU; the arguments, and what is done in the peer's favour, as in `build_torchvision_run`."""
    torch.manual_seed(cfg.SEED)
    precision = Precision("cpu")
    model = Detectron2Detector(cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, positives=positives)
    return build_peer_run(
        Detectron2Run, cfg, model, precision, torch.device("cpu"), as_instances, image_size=image_size, length=length
    )


def as_instances(boxlist: Any) -> Any:
    """The objects of an image as detectron2 takes them."""
    from detectron2.structures import Boxes, Instances, PolygonMasks

    width, height = boxlist.size
    polygons = boxlist.get_field("masks").convert("poly").instances.polygons
    instances = Instances((height, width))
    instances.gt_boxes = Boxes(boxlist.bbox)
    instances.gt_classes = boxlist.get_field("labels") - 1
    instances.gt_masks = PolygonMasks([[ring.double().numpy() for ring in each.polygons] for each in polygons])
    return instances


class Detectron2Pictures:
    """Detection on a picture by detectron2's network, from pixels to masks of the picture's size.

    Args:
        cfg: SEED and the number of classes are read.
        picture: uint8 [H, W, 3] in BGR, on which the random network is made to detect as a trained one does.
    """

    def __init__(self, cfg: CfgNode, picture: np.ndarray) -> None:
        torch.manual_seed(cfg.SEED)
        self.network = build_network(cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES).eval()
        sharpen_predictor(self.network.roi_heads.box_predictor, lambda: self.detect(picture))

    @torch.inference_mode()
    def detect(self, picture: np.ndarray) -> int:
        """The number of detections."""
        height, width = picture.shape[:2]
        image = torch.from_numpy(picture.transpose(2, 0, 1).astype("float32"))
        (found,) = self.network([{"image": image, "height": height, "width": width}])
        return len(found["instances"].pred_masks)

    def watch(self, recorder: StageRecorder) -> None:
        """Record the stages, under the names of ours."""
        from detectron2.modeling.meta_arch import rcnn

        watch_network(recorder, self.network)
        recorder.watch_call(rcnn, "detector_postprocess", "paste")
