"""What benchmarks/ops.py measures about boxes: suppression, matching, box codes, and the two stages made of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import _op_peers as peers
from benchmarks._op_calls import Call, Setting, op_call
from maskrcnn_benchmark import ops
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.proposals import Proposals
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import select_detections
from maskrcnn_benchmark.modeling.rpn.inference import select_proposals

LEVELS = ((200, 336), (100, 168), (50, 84), (25, 42), (13, 21))
NUM_CLASSES = 81


def nms_calls(setting: Setting) -> Iterator[Call]:
    """RPN: five levels, each by itself. Detections: the classes of 1000 boxes above a score of 0.05."""
    num_boxes = setting.number(2000, 100)
    boxes = torch.stack([setting.boxes(num_boxes, seed) for seed in range(5)])
    valid = torch.ones(5, num_boxes, dtype=torch.bool, device=setting.device)
    yield op_call(
        "batched_nms",
        f"5 levels of {num_boxes}, IoU 0.7",
        (boxes, valid, 0.7, 0),
        {"torchvision": lambda: peers.torchvision_nms_of_levels(boxes, 0.7)},
    )
    crowd = setting.boxes(setting.number(10000, 200))
    scores = torch.linspace(1, 0, len(crowd), device=setting.device)
    yield Call(
        "nms",
        f"{len(crowd)} boxes of one class, IoU 0.5",
        lambda: ops.nms(crowd, scores, 0.5, offset=0),
        {"torchvision": lambda: lambda: torch.ops.torchvision.nms(crowd, scores, 0.5)},
        exact=True,  # the scores fall, so the kept indices are in ascending order for both
    )


def match_calls(setting: Setting) -> Iterator[Call]:
    """All anchors in training, and the proposals of the box head."""
    for num_anchors, num_gt, low_quality in ((268569, 20, True), (268569, 100, True), (2000, 20, False)):
        anchors = setting.boxes(num_anchors if not setting.quick else num_anchors // 100 + 50)
        objects = setting.boxes(num_gt, 1)
        valid = torch.ones(1, num_gt, dtype=torch.bool, device=setting.device)
        thresholds = (0.7, 0.3) if low_quality else (0.5, 0.5)
        theirs = (anchors, objects, *thresholds, low_quality)
        yield op_call(
            "match_boxes",
            f"{len(anchors)} {'anchors' if low_quality else 'proposals'}, {num_gt} ground truths",
            (anchors, objects[None], valid, *thresholds, low_quality, 0),
            {
                "torchvision": lambda theirs=theirs: peers.torchvision_match(*theirs),
                "detectron2": lambda theirs=theirs: peers.detectron2_match(*theirs),
            },
            exact=True,
        )


def box_code_calls(setting: Setting) -> Iterator[Call]:
    """Boxes to codes and back, for all anchors and for the classes of the box head."""
    weights = (10.0, 10.0, 5.0, 5.0)
    for name, count, factors in (("all anchors", 268569, (1.0,) * 4), ("proposals", 1000, weights)):
        boxes = setting.boxes(count if not setting.quick else count // 100 + 50)
        objects, coder = setting.boxes(len(boxes), 1), BoxCoder(factors, offset=0)
        codes = coder.encode(objects, boxes)
        case = f"{len(boxes)} {name}"
        # Boxes without a side have no finite code; the comparison of speed does not mind.
        yield Call(
            "encode_boxes",
            case,
            lambda coder=coder, a=objects, b=boxes: coder.encode(a, b),
            {
                "torchvision": lambda f=factors, a=objects, b=boxes: peers.torchvision_encode(f, a, b),
                "detectron2": lambda f=factors, a=objects, b=boxes: peers.detectron2_encode(f, a, b),
            },
        )
        yield Call(
            "decode_boxes",
            case,
            lambda coder=coder, a=codes, b=boxes: coder.decode(a, b),
            {
                "torchvision": lambda f=factors, a=codes, b=boxes: peers.torchvision_decode(f, a, b),
                "detectron2": lambda f=factors, a=codes, b=boxes: peers.detectron2_decode(f, a, b),
            },
        )


def stage_calls(setting: Setting) -> Iterator[Call]:
    """From the RPN's maps to 1000 proposals, and from the box head's figures to 100 detections, one image each."""
    yield _proposal_call(setting)
    yield _detection_call(setting)


def _proposal_call(setting: Setting) -> Call:
    generator = torch.Generator().manual_seed(0)
    counts = [3 * height * width // setting.number(1, 100) for height, width in LEVELS]
    logits = [torch.randn(1, count, generator=generator).to(setting.device) for count in counts]
    deltas = [(torch.randn(1, count, 4, generator=generator) * 0.1).to(setting.device) for count in counts]
    anchors = [setting.boxes(count, seed) for seed, count in enumerate(counts)]
    sizes = torch.tensor([setting.image_size], device=setting.device)
    settings = {"pre_nms_top_n": setting.number(2000, 100), "post_nms_top_n": 1000, "nms_thresh": 0.7, "min_size": 0}
    coder = BoxCoder((1.0,) * 4)
    theirs = (logits, deltas, anchors, setting.image_size, settings)
    return Call(
        "proposals of an image",
        f"{sum(counts)} anchors on 5 levels",
        lambda: select_proposals(
            logits, deltas, anchors, sizes, box_coder=coder, total_top_n=1000, total_over_batch=False, **settings
        ),
        {
            "torchvision": lambda: peers.torchvision_proposals(*theirs),
            "detectron2": lambda: peers.detectron2_proposals(*theirs),
        },
    )


def _detection_call(setting: Setting) -> Call:
    generator = torch.Generator().manual_seed(0)
    count = setting.number(1000, 60)
    logits = torch.randn(count, NUM_CLASSES, generator=generator).mul(2.5).to(setting.device)
    deltas = torch.randn(count, 4 * NUM_CLASSES, generator=generator).to(setting.device)
    boxes = setting.boxes(count)
    proposals = Proposals(
        boxes[None], logits.new_ones(1, count), torch.ones(1, count, dtype=torch.bool).to(boxes.device)
    )
    sizes = torch.tensor([setting.image_size], device=setting.device)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    limits = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100}
    theirs = (logits, deltas, boxes, setting.image_size, limits)
    return Call(
        "detections of an image",
        f"{count} proposals, 80 classes, score above 0.05",
        lambda: select_detections(logits, deltas, proposals, sizes, box_coder=coder, **limits),
        {
            "torchvision": lambda: peers.torchvision_detections(*theirs),
            "detectron2": lambda: peers.detectron2_detections(*theirs),
        },
    )
