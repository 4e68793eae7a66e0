"""The work that benchmarks/scaling.py lets grow: a training step, inference, and the ops by themselves.

The network is R-50-FPN with an eighth of its channels, because the convolutions' cost is known: operations over a
constant rate. What grows here is the rest, and with the picture also the narrow convolutions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._op_calls import Setting
from benchmarks._op_calls_masks import ellipses
from benchmarks.step import ROOT, make_batch
from maskrcnn_benchmark import ops
from maskrcnn_benchmark.apps.benchmark_network import give_positives, settle_activations, sharpen_classes
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import select_detections
from maskrcnn_benchmark.ops._resize import torch_fuses_products
from maskrcnn_benchmark.ops.paste_masks import _prepare
from maskrcnn_benchmark.solver import make_optimizer

Work = Callable[[], Any]
CONFIG = "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"
NARROW = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.OUT_CHANNELS": 32,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 128,
    "MODEL.ROI_MASK_HEAD.CONV_LAYERS": (32, 32, 32, 32),
    "SOLVER.BASE_LR": 1e-8,
}
POSITIVES = 64  # regions of an image


@dataclass(frozen=True)
class Load:
    """What a step or an inference has to do; one of these grows."""

    size: tuple[int, int] = (320, 448)
    batch: int = 1
    objects: int = 10
    proposals: int = 1000
    classes: int = 80
    detections: int = 100


def _config(load: Load) -> Any:
    cfg = defaults.clone()
    cfg.merge_from_file(str(ROOT / CONFIG))
    rpn = ("PRE_NMS_TOP_N_TRAIN", "POST_NMS_TOP_N_TRAIN", "FPN_POST_NMS_TOP_N_TRAIN")
    rpn += ("PRE_NMS_TOP_N_TEST", "POST_NMS_TOP_N_TEST", "FPN_POST_NMS_TOP_N_TEST")
    keys = NARROW | {f"MODEL.RPN.{key}": load.proposals for key in rpn}
    keys |= {
        "MODEL.RPN.FPN_POST_NMS_PER_BATCH": False,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": load.classes + 1,
        "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": load.detections,
    }
    cfg.merge_from_list([word for pair in keys.items() for word in pair])
    return cfg


def _build(load: Load) -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    cfg = _config(load)
    model = build_detection_model(cfg)
    settle_activations(model)
    sizes = argparse.Namespace(size=load.size, batch=load.batch, objects=load.objects)
    images, targets = make_batch(sizes, load.classes + 1, torch.device("cpu"))
    return cfg, model, images, targets


def training_step(load: Load) -> Work:
    """Forward, backward and update of one batch."""
    cfg, model, images, targets = _build(load)
    give_positives(model.train(), POSITIVES)
    optimizer = make_optimizer(cfg, model)

    def step() -> None:
        torch.manual_seed(1)  # the same samples each time
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()

    return step


def inference(load: Load) -> Work:
    """From a batch to COCO's run lengths of the masks."""
    _, model, images, _ = _build(load)
    sharpen_classes(model.eval(), lambda: model(images))

    @torch.no_grad()
    def infer() -> None:
        for found in model(images):
            masks = found.get_field("mask")
            ops.paste_masks_rle(masks[:, 0], found.bbox, image_size=load.size, threshold=0.5)

    return infer


_FULL = Setting()
_LEVELS = ((200, 336), (100, 168), (50, 84), (25, 42))
_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def roi_align_both_ways(num_rois: int) -> Work:
    """ROIAlign of 7x7 over 64 channels of four levels, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 64, *size, generator=generator).requires_grad_() for size in _LEVELS]
    rois = torch.nn.functional.pad(_FULL.boxes(num_rois), (1, 0))

    def run() -> None:
        with torch.enable_grad():
            pooled = ops.roi_align(features, rois, output_size=(7, 7), spatial_scales=_SCALES, sampling_ratio=2)
            torch.autograd.grad(pooled.sum(), features)

    return run


def suppress(num_boxes: int) -> Work:
    """NMS of boxes of one class."""
    boxes, scores = _FULL.boxes(num_boxes), torch.linspace(1, 0, num_boxes)
    return lambda: ops.nms(boxes, scores, 0.7)


def match(num_objects: int, num_anchors: int = 268569) -> Work:
    """Anchors to ground truths."""
    anchors, objects = _FULL.boxes(num_anchors), _FULL.boxes(num_objects, 1)[None]
    valid = torch.ones(1, num_objects, dtype=torch.bool)
    return lambda: ops.match_boxes(anchors, objects, valid, high=0.7, low=0.3, allow_low_quality=True)


def draw_targets(num_regions: int) -> Work:
    """Mask targets of one region an object."""
    boxes = _FULL.boxes(num_regions)
    offsets = torch.arange(num_regions + 1)
    coords = ellipses(boxes, 40).flatten(0, 1)
    return lambda: ops.polygon_mask_targets(coords, offsets * 40, offsets, offsets[:-1], boxes, resolution=28)


def paste(num_masks: int, size: tuple[int, int] = (800, 1344)) -> Work:
    """Predicted masks to run lengths."""
    masks = torch.rand(num_masks, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = _FULL.boxes(num_masks) * (size[0] / 800)
    arguments = (*_prepare(masks, boxes, 1), *size, 0.5, torch_fuses_products())
    return lambda: torch.ops.mrcnn.paste_masks_rle(*arguments)


def detect(num_classes: int, num_proposals: int = 1000) -> Work:
    """The box head's figures of all classes to 100 detections."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_proposals, num_classes + 1, generator=generator) * 3
    deltas = torch.randn(num_proposals, 4 * (num_classes + 1), generator=generator)
    boxes = _FULL.boxes(num_proposals)
    proposals = Proposals(boxes[None], torch.ones(1, num_proposals), torch.ones(1, num_proposals, dtype=torch.bool))
    sizes, coder = torch.tensor([[800, 1344]]), BoxCoder((10.0, 10.0, 5.0, 5.0))
    limits = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100}
    return lambda: select_detections(logits, deltas, proposals, sizes, box_coder=coder, **limits)


@dataclass(frozen=True)
class Sweep:
    """One quantity that grows, and the work at each of its values."""

    work: str
    quantity: str
    points: Sequence[tuple[float, str, Callable[[], Work]]]  # amount, words for it, what builds the work

    @property
    def name(self) -> str:
        """The name of its rows."""
        return f"{self.work} against {self.quantity}"


def _network_sweep(
    work: str, make: Callable[[Load], Work], quantity: str, loads: Sequence[tuple[float, Load]]
) -> Sweep:
    def words(amount: float, load: Load) -> str:
        return f"{load.size[0]}x{load.size[1]}" if quantity == "megapixels" else f"{amount:g}"

    points = [(amount, words(amount, load), lambda load=load: make(load)) for amount, load in loads]
    return Sweep(work, quantity, points)


def _op_sweep(work: str, quantity: str, make: Callable[[int], Work], amounts: Sequence[int]) -> Sweep:
    return Sweep(work, quantity, [(n, str(n), lambda n=n: make(n)) for n in amounts])


def list_sweeps(*, quick: bool = False) -> list[Sweep]:
    """All of them, the ops first; quick: two points of a few."""
    sides = ((256, 384), (512, 768), (1024, 1536), (2016, 3008))
    network: list[Sweep] = []
    for work, make in (("training step", training_step), ("inference", inference)):
        sizes = [(height * width / 1e6, Load(size=(height, width))) for height, width in sides]
        network.append(_network_sweep(work, make, "megapixels", sizes))
        network.append(_network_sweep(work, make, "images", [(n, Load(batch=n)) for n in (1, 2, 4, 8)]))
        counts = (1000, 2000, 5000, 10000)
        network.append(
            _network_sweep(work, make, "proposals", [(n, Load(size=(640, 896), proposals=n)) for n in counts])
        )
        network.append(_network_sweep(work, make, "classes", [(n, Load(classes=n)) for n in (20, 80, 300, 1200)]))
    objects = [(n, Load(size=(512, 768), objects=n)) for n in (20, 100, 500, 2000)]
    network.append(_network_sweep("training step", training_step, "ground truths", objects))
    detections = [(n, Load(size=(512, 768), detections=n)) for n in (30, 100, 300, 1000)]
    network.append(_network_sweep("inference", inference, "detections", detections))
    alone = [
        _op_sweep("ROIAlign and gradient", "rois", roi_align_both_ways, (300, 1000, 3000, 10000)),
        _op_sweep("NMS", "boxes", suppress, (2000, 6000, 20000, 60000)),
        _op_sweep("matching of 268569 anchors", "ground truths", match, (20, 100, 500, 2000)),
        _op_sweep(
            "matching of 100 ground truths", "anchors", lambda n: match(100, n), (20000, 100000, 500000, 1500000)
        ),
        _op_sweep("mask targets", "regions", draw_targets, (30, 128, 500, 2000)),
        _op_sweep("pasting to run lengths", "masks", paste, (30, 100, 300, 1000)),
        Sweep(
            "pasting 100 masks to run lengths",
            "megapixels",
            [(h * w / 1e6, f"{h}x{w}", lambda size=(h, w): paste(100, size)) for h, w in sides],
        ),
        _op_sweep("detections of 1000 proposals", "classes", detect, (20, 80, 300, 1200)),
        _op_sweep("detections of 80 classes", "proposals", lambda n: detect(80, n), (300, 1000, 3000, 10000)),
    ]
    if quick:
        loads = [(n, Load(size=(96, 128), batch=n, proposals=100)) for n in (1, 2)]
        return [
            _op_sweep("mask targets", "regions", draw_targets, (10, 20)),
            _network_sweep("training step", training_step, "images", loads),
        ]
    return alone + network
