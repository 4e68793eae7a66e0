"""What benchmarks/ops.py measures about masks, pixels and losses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import _op_peers_masks as peers
from benchmarks._op_calls import Call, Setting, op_call
from maskrcnn_benchmark.ops import paste_masks_rle
from maskrcnn_benchmark.ops._resize import torch_fuses_products
from maskrcnn_benchmark.ops.paste_masks import _prepare


def circle(num_vertices: int) -> Tensor:
    """[num_vertices, 2] points on a circle of radius 1."""
    angles = torch.arange(num_vertices) * (2 * math.pi / num_vertices)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def ellipses(boxes: Tensor, num_vertices: int) -> Tensor:
    """[R, num_vertices, 2] the ellipse within each box."""
    centre, half = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    return centre + circle(num_vertices).to(boxes) * half


def mask_target_calls(setting: Setting) -> Iterator[Call]:
    """The targets of an image's positive regions: one ring of 40 vertices an object."""
    count = setting.number(128, 8)
    boxes = setting.boxes(count)
    rings = ellipses(boxes, 40)
    offsets = torch.arange(count + 1, device=setting.device)
    indices = offsets[:-1].contiguous()
    theirs = (rings, boxes, 28)
    others = {
        "torchvision": lambda: peers.torchvision_mask_targets(*theirs, setting.image_size),
        "detectron2": lambda: peers.detectron2_mask_targets(*theirs),
    }
    yield op_call(
        "polygon_mask_targets",
        f"{count} of 40 vertices, 28x28",
        (rings.flatten(0, 1), offsets * 40, offsets, indices, boxes, 28),
        others,
    )


def paste_calls(setting: Setting) -> Iterator[Call]:
    """100 predicted masks into the image, as bitmaps and as COCO's run lengths."""
    count = setting.number(100, 8)
    masks = torch.rand(count, 28, 28, generator=torch.Generator().manual_seed(0))
    masks = torch.nn.functional.avg_pool2d(masks, 5, 1, 2)  # blobs, as a network gives, instead of noise
    boxes = setting.boxes(count).cpu()
    arguments = (*_prepare(masks, boxes, 1), *setting.image_size, 0.5, torch_fuses_products())
    theirs = (masks, boxes, setting.image_size)
    others = {
        "torchvision": lambda: peers.torchvision_paste(*theirs),
        "detectron2": lambda: peers.detectron2_paste(*theirs),
    }
    case = f"{count} masks of 28x28"
    yield op_call("paste_masks", case, arguments, others)
    yield op_call("paste_masks_rle", case, arguments)
    yield Call(
        "masks to COCO run lengths",
        case,
        lambda: paste_masks_rle(masks, boxes, image_size=setting.image_size, threshold=0.5),
        {name: lambda paste=paste: peers.encode_with_pycocotools(paste()) for name, paste in others.items()},
    )


def normalize_calls(setting: Setting) -> Iterator[Call]:
    """Two decoded images to the network's input."""
    height, width = setting.image_size
    sizes = torch.tensor([[height, width * 4 // 5], [height, width * 9 // 10]], device=setting.device)
    mean = torch.tensor([102.9801, 115.9465, 122.7717], device=setting.device)
    pixels = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, device=setting.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    images = [image[:, :h, :w] for image, (h, w) in zip(pixels, sizes.tolist(), strict=True)]
    for channels_last in (False, True):
        others = {
            "torchvision": lambda: peers.torchvision_normalize(images, mean),
            "detectron2": lambda: peers.detectron2_normalize(images, mean),
        }
        case = f"2 images of {height}x{width}, {'nhwc' if channels_last else 'nchw'} out"
        arguments = (pixels, sizes, mean, None, False, channels_last)
        yield op_call("normalize_images", case, arguments, {} if channels_last else others)


def focal_loss_calls(setting: Setting) -> Iterator[Call]:
    """RetinaNet's classification of all anchors of an image, mostly background."""
    generator = torch.Generator().manual_seed(0)
    count = setting.number(201600, 500)
    targets = torch.randint(1, 81, (count,), generator=generator)
    targets *= torch.rand(count, generator=generator) < 0.005
    targets = targets.to(setting.device)
    for dtype in (torch.float32, torch.bfloat16):
        logits = (torch.randn(count, 80, generator=generator) - 4).to(setting.device, dtype)
        case = f"{count} anchors, 80 classes, {str(dtype).removeprefix('torch.')}"
        theirs = (logits, targets, 2.0, 0.25)
        close = False if dtype == torch.float32 else None  # theirs sums in bfloat16
        yield op_call(
            "sigmoid_focal_loss",
            case,
            theirs,
            {"torchvision": lambda theirs=theirs: peers.torchvision_focal_loss(*theirs)},
            exact=close,
        )
        yield op_call(
            "sigmoid_focal_loss_backward",
            case,
            (torch.tensor(1.0, device=setting.device), *theirs),
            {"torchvision": lambda theirs=theirs: peers.torchvision_focal_loss_grad(*theirs)},
            exact=close,
        )


def coco_eval_calls(setting: Setting) -> Iterator[Call]:
    """The ops under COCO's metrics; benchmarks/evaluation.py has the peers."""
    generator = torch.Generator().manual_seed(0)
    count = setting.number(800, 80)
    centres = torch.rand(count, 2, generator=generator).double() * 500 + 50
    radii = torch.rand(count, 1, 2, generator=generator).double() * 100 + 10
    coords, offsets = (centres[:, None] + circle(40).double() * radii).flatten(0, 1), torch.arange(count + 1)
    polygons = (coords, offsets * 40, offsets, torch.tensor([[600, 600]]).expand(count, 2).contiguous())
    yield op_call("rasterize_polygons", f"{count} of 40 vertices", polygons)
    text, bounds = torch.ops.mrcnn.rasterize_polygons(*polygons)
    yield op_call("rle_areas", f"{count} masks", (text, bounds))
    # Groups of 10 detections and 10 objects.
    groups, crowd = torch.arange(count // 10 + 1) * 10, torch.zeros(count, dtype=torch.uint8)
    masks = (text, bounds, text, bounds, groups, groups, crowd)
    yield op_call("rle_overlaps", f"{count // 10} x 10 x 10 masks", masks)
    thresholds = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)
    ious = torch.rand(count * 10, generator=generator, dtype=torch.float64)
    matching = (ious, groups, groups, torch.zeros(4, count, dtype=torch.uint8), crowd, thresholds)
    yield op_call("match_detections", f"{count // 10} x 10 x 10, 4 areas, 10 thresholds", matching)
