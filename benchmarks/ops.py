"""Every op against its plain PyTorch kernel: time, ratio and peak memory, at the shapes of a training step at 800x1344.

    python benchmarks/ops.py                  all ops
    python benchmarks/ops.py roi_align nms    some of them
    python benchmarks/ops.py --threads 1 --rounds 15

Prints a table and writes benchmarks/results/ops.json (only when all ops ran, or with --write).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("MASKRCNN_REQUIRE_EXT", "1")  # a benchmark of the plain kernels against themselves says nothing

import torch

from benchmarks._timing import measure, print_table, write_results
from maskrcnn_benchmark.ops import roi_levels
from maskrcnn_benchmark.ops._library import plain_kernel
from maskrcnn_benchmark.ops._resize import torch_fuses_products
from maskrcnn_benchmark.ops.paste_masks import _prepare
from tests.ops.deform_conv_cases import RES3, RES5
from tests.ops.inputs import BOX_HEAD, C4_POOL, MASK_HEAD, RoiCase, proposal_boxes

IMAGE_SIZE = (800, 1344)


@dataclass(frozen=True)
class Call:
    """One op with the arguments of its schema."""

    op: str
    case: str
    arguments: tuple[Any, ...]


def _roi_align_calls() -> Iterator[Call]:
    for shape in (BOX_HEAD, MASK_HEAD):
        for dtype in (torch.float32, torch.bfloat16):
            for channels_last in (False, True):
                case = replace(shape, dtype=dtype, channels_last=channels_last)
                yield from _roi_align_pair(case)
    yield from _roi_align_pair(replace(BOX_HEAD, name="box_head_adaptive", sampling_ratio=0))


def _roi_align_pair(case: RoiCase) -> Iterator[Call]:
    rois = case.make_rois()
    levels = roi_levels(rois, spatial_scales=case.scales)
    common = (list(case.scales), case.sampling_ratio)
    yield Call("roi_align", str(case), (case.features(), rois, levels, list(case.output_size), *common))
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    grad = torch.randn(case.num_rois, case.channels, *case.output_size).to(case.dtype).contiguous(memory_format=layout)
    heights, widths = (list(sides) for sides in zip(*case.map_sizes(), strict=True))
    sizes = (case.num_images, heights, widths)
    yield Call("roi_align_backward", str(case), (grad, rois, levels, *sizes, *common, case.channels_last))


def _roi_pool_calls() -> Iterator[Call]:
    rois, features, size = C4_POOL.make_rois(), C4_POOL.features()[0], C4_POOL.map_sizes()[0]
    bins, scale = list(C4_POOL.output_size), C4_POOL.scales[0]
    yield Call("roi_pool", str(C4_POOL), (features, rois, bins, scale))
    output, argmax = torch.ops.mrcnn.roi_pool(features, rois, bins, scale)
    grad = torch.randn_like(output)
    yield Call("roi_pool_backward", str(C4_POOL), (grad, argmax, rois, C4_POOL.num_images, *size, scale, False))


def _deform_conv_calls() -> Iterator[Call]:
    for shape in (RES3, RES5):
        for channels_last in (False, True):
            case = replace(shape, channels_last=channels_last)
            yield Call("deform_conv", str(case), case.arguments())
            yield Call("deform_conv_backward", str(case), case.backward_arguments())


def _boxes(num_boxes: int, seed: int) -> torch.Tensor:
    return proposal_boxes(num_boxes, IMAGE_SIZE, torch.Generator().manual_seed(seed))


def _nms_calls() -> Iterator[Call]:
    boxes = torch.stack([_boxes(2000, seed) for seed in range(5)])
    yield Call("batched_nms", "5 levels of 2000, IoU 0.7", (boxes, torch.ones(5, 2000, dtype=torch.bool), 0.7, 1))


def _match_calls() -> Iterator[Call]:
    for num_gt in (10, 100):
        gt_boxes, gt_valid = _boxes(num_gt, 1)[None], torch.ones(1, num_gt, dtype=torch.bool)
        case = f"268569 anchors, {num_gt} ground truths"
        yield Call("match_boxes", case, (_boxes(268569, 0), gt_boxes, gt_valid, 0.7, 0.3, True, 1))


def _mask_target_calls() -> Iterator[Call]:
    boxes = _boxes(128, 0)
    angles = torch.arange(40) * (2 * math.pi / 40)
    unit = torch.stack([angles.cos(), angles.sin()], dim=1)  # one ring of 40 vertices an instance
    centre, half = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, (boxes[:, None, 2:] - boxes[:, None, :2]) / 2
    coords = (centre + unit * half).flatten(0, 1)
    offsets = torch.arange(129)
    yield Call(
        "polygon_mask_targets",
        "128 of 40 vertices, 28x28",
        (coords, offsets * 40, offsets, torch.arange(128), boxes, 28),
    )


def _paste_calls() -> Iterator[Call]:
    masks = torch.rand(100, 28, 28, generator=torch.Generator().manual_seed(0))
    arguments = (*_prepare(masks, _boxes(100, 0), 1), *IMAGE_SIZE, 0.5, torch_fuses_products())
    yield Call("paste_masks", "100 masks of 28x28", arguments)
    yield Call("paste_masks_rle", "100 masks of 28x28", arguments)


def _normalize_calls() -> Iterator[Call]:
    sizes, mean = torch.tensor([[800, 1066], [800, 1204]]), torch.tensor([102.9801, 115.9465, 122.7717])
    pixels = torch.randint(0, 256, (2, 3, *IMAGE_SIZE), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    for channels_last in (False, True):
        case = f"2 images, {'nhwc' if channels_last else 'nchw'} out"
        yield Call("normalize_images", case, (pixels, sizes, mean, None, False, channels_last))


def _focal_loss_calls() -> Iterator[Call]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(1, 81, (201600,), generator=generator)
    targets *= torch.rand(201600, generator=generator) < 0.005  # mostly background
    for dtype in (torch.float32, torch.bfloat16):
        logits = (torch.randn(201600, 80, generator=generator) - 4).to(dtype)
        case = f"201600 anchors, 80 classes, {str(dtype).removeprefix('torch.')}"
        yield Call("sigmoid_focal_loss", case, (logits, targets, 2.0, 0.25))
        yield Call("sigmoid_focal_loss_backward", case, (torch.tensor(1.0), logits, targets, 2.0, 0.25))


def _coco_eval_calls() -> Iterator[Call]:
    generator = torch.Generator().manual_seed(0)
    angles = torch.arange(40) * (2 * math.pi / 40)
    unit = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    centres = torch.rand(800, 2, generator=generator).double() * 500 + 50
    radii = torch.rand(800, 1, 2, generator=generator).double() * 100 + 10
    coords, offsets = (centres[:, None] + unit * radii).flatten(0, 1), torch.arange(801)
    polygons = (coords, offsets * 40, offsets, torch.tensor([[600, 600]]).expand(800, 2).contiguous())
    yield Call("rasterize_polygons", "800 of 40 vertices", polygons)
    text, bounds = torch.ops.mrcnn.rasterize_polygons(*polygons)
    yield Call("rle_areas", "800 masks", (text, bounds))
    # 80 groups of 10 detections and 10 objects.
    groups, crowd = torch.arange(81) * 10, torch.zeros(800, dtype=torch.uint8)
    masks = (text, bounds, text, bounds, groups, groups, crowd)
    yield Call("rle_overlaps", "80 x 10 x 10 masks", masks)
    thresholds = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)
    ious = torch.rand(8000, generator=generator, dtype=torch.float64)
    matching = (ious, groups, groups, torch.zeros(4, 800, dtype=torch.uint8), crowd, thresholds)
    yield Call("match_detections", "80 x 10 x 10, 4 areas, 10 thresholds", matching)


# Every op of the library stands here once; tests/ops/test_library.py compares.
CALLS: dict[tuple[str, ...], Callable[[], Iterator[Call]]] = {
    ("roi_align", "roi_align_backward"): _roi_align_calls,
    ("roi_pool", "roi_pool_backward"): _roi_pool_calls,
    ("deform_conv", "deform_conv_backward"): _deform_conv_calls,
    ("batched_nms",): _nms_calls,
    ("match_boxes",): _match_calls,
    ("polygon_mask_targets",): _mask_target_calls,
    ("paste_masks", "paste_masks_rle"): _paste_calls,
    ("normalize_images",): _normalize_calls,
    ("sigmoid_focal_loss", "sigmoid_focal_loss_backward"): _focal_loss_calls,
    ("rasterize_polygons", "rle_areas", "rle_overlaps", "match_detections"): _coco_eval_calls,
}


def _row(call: Call, rounds: int) -> dict[str, Any]:
    variants = {
        "compiled": lambda: getattr(torch.ops.mrcnn, call.op)(*call.arguments),
        "plain": lambda: plain_kernel(call.op)(*call.arguments),
    }
    with torch.no_grad():
        result = measure(variants, rounds=rounds)
    return {
        "op": call.op,
        "case": call.case,
        "speed_up": round(result["plain"].median / result["compiled"].median, 2),
        **{name: measurement.as_dict() for name, measurement in result.items()},
    }


def main() -> None:
    """Runs the chosen ops."""
    known = sorted(name for names in CALLS for name in names)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="write the JSON file for a part of the ops too")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.ops) - set(known))
    if unknown:
        parser.error(f"no op is called {', '.join(unknown)}; there are {', '.join(known)}")
    torch.set_num_threads(arguments.threads)
    chosen = set(arguments.ops or known)
    rows = []
    for names, make_calls in CALLS.items():
        for call in make_calls() if chosen.intersection(names) else ():
            if call.op in chosen:
                rows.append(_row(call, arguments.rounds))
    headers = ("op", "case", "compiled ms", "plain ms", "plain / compiled", "compiled MiB", "plain MiB")
    keys = ("median_ms", "peak_memory_mib")
    times, memory = ([(row["compiled"][key], row["plain"][key]) for row in rows] for key in keys)
    print_table(
        headers,
        [
            (row["op"], row["case"], *time, row["speed_up"], *peak)
            for row, time, peak in zip(rows, times, memory, strict=True)
        ],
    )
    if arguments.write or len(chosen) == len(known):
        print(f"\nWritten to {write_results('ops', rows)}")


if __name__ == "__main__":
    main()
