"""Run the iteration of a debug bundle again, and find what is first not finite: what tools/replay_debug.py does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.replay_debug import make_parser as make_parser
from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.data.build import make_device_normalize
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.engine.prefetch import Preparation
from maskrcnn_benchmark.engine.seeding import seed_step
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.polygons import PackedPolygons
from maskrcnn_benchmark.structures.targets import Targets


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Run the program; what it finds goes to stdout.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    report = read_report(args.bundle)
    cfg, device = build_setting(args, cfg)
    precision = Precision.from_config(cfg, device)
    model = precision.place_model(build_detection_model(cfg), device)
    model.load_state_dict(read_weights(os.path.join(args.bundle, "model.pth")))
    batch = read_batch(args.bundle, report["indices"])
    normalize = make_device_normalize(cfg, device) if batch[0].tensors.dtype == torch.uint8 else None
    images, targets, _ = Preparation(precision, device, normalize)(batch)
    sys.stdout.write(f"then: {report['what']} at iteration {report['iteration']}, files {report['file_names']}\n")
    if not report["weights_are_those_of_the_iteration"]:
        sys.stdout.write("the weights are later ones: what is found may differ\n")
    seed_step(report["seed"], report["iteration"], report["process"])
    for line in replay(model, images, targets, precision):
        sys.stdout.write(f"{line}\n")


def build_setting(args: argparse.Namespace, cfg: CfgNode) -> tuple[CfgNode, torch.device]:
    """The config of the bundle with what the options change, and the device."""
    cfg = cfg.clone()
    cfg.merge_from_file(os.path.join(args.bundle, "config.yml"))
    if args.dtype:
        cfg.DTYPE = args.dtype
    device = torch.device(args.device or (cfg.MODEL.DEVICE if torch.cuda.is_available() else "cpu"))
    cfg.MODEL.DEVICE = device.type
    cfg.freeze()
    return cfg, device


def read_report(bundle: str) -> dict[str, Any]:
    """The report of a bundle.

    Raises:
        FileNotFoundError: it is no bundle. ValueError: it lacks what a replay needs.
    """
    path = os.path.join(bundle, "report.json")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{bundle} is no debug bundle: it has no report.json")
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    if report["left_out"]:
        raise ValueError(
            f"{bundle} has no {' and no '.join(report['left_out'])}, which would have made it too large; its "
            "report.json names images and losses"
        )
    return report


def read_batch(bundle: str, indices: list[int]) -> tuple[ImageList, Targets, tuple[int, ...]]:
    """The batch of a bundle, on the CPU."""
    plain = read_weights(os.path.join(bundle, "batch.pth"))
    sizes = [tuple(size) for size in plain["image_sizes"]]
    vectors = [plain[name] for name in ("coords", "ring_offsets", "instance_offsets")]
    polygons = PackedPolygons(*vectors) if vectors[0] is not None else None
    targets = Targets(plain["boxes"], plain["labels"], polygons, sizes, plain["keypoints"])
    return ImageList(plain["images"], sizes), targets, tuple(indices)


def replay(model: nn.Module, images: ImageList, targets: Targets, precision: Precision) -> Iterator[str]:
    """Run forward and backward pass, and say what is not finite, in the order in which it comes to be.

    Args:
        model: on its device.
        images: the network's input. targets: with them.
        precision: number format; its loss scaler is not used.
    """
    yield from _describe("input", {"images": images.tensors, "boxes of targets": targets.boxes})
    yield from _describe("weights", dict(model.named_parameters()))
    found: list[str] = []
    hooks = [module.register_forward_hook(_watch(name, found)) for name, module in model.named_modules() if name]
    model.train()
    with precision.autocast():
        losses = model(images, targets)
    for hook in hooks:
        hook.remove()
    yield f"first layer whose output is not finite: {found[0]}" if found else "layers: every output is finite"
    for name, loss in losses.items():
        yield f"{name}: {loss.item()}"
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    yield from _describe("gradients", gradients)


def _watch(name: str, found: list[str]) -> Any:
    """A hook that notes the name of a module with an output that is not finite; modules inside come first."""

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in _tensors(output)):
            found.append(f"{name} ({type(module).__name__})")

    return look


def _tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from (tensor for item in value.values() for tensor in _tensors(item))
    elif isinstance(value, list | tuple):
        yield from (tensor for item in value for tensor in _tensors(item))


def _describe(what: str, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """One line on which of some tensors are not finite."""
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    listed = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    yield f"{what}: {listed} not finite" if bad else f"{what}: finite"
