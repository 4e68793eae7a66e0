"""The whole training step with the compiled ops against the same model on the plain PyTorch ops.

Two processes hold the same network, weights and batch; one of them does not load the compiled library. They take turns,
one step each, so that other load on the machine meets both alike. Prints a table and writes JSON.

    python benchmarks/step.py                      # R-50-FPN, 800x1344, batch 1
    python benchmarks/step.py --quick              # 320x448, for slow machines
    python benchmarks/step.py --size 640 960 --batch 2 --rounds 10
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
EXTENSION = "maskrcnn_benchmark._C"
VARIANTS = ("compiled", "plain")
MEBIBYTE = 1 << 20


def worker(variant: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Build everything, then run one step each time the pipe says so; at its end report the peak memory."""
    if variant == "plain":
        # An import of this module now fails, and the package falls back to its plain kernels.
        sys.modules[EXTENSION] = None  # type: ignore[assignment]
        warnings.filterwarnings("ignore", message="The compiled kernels")
    else:
        os.environ["MASKRCNN_REQUIRE_EXT"] = "1"
    import torch

    from maskrcnn_benchmark.ops import backend_info
    from maskrcnn_benchmark.utils.allocator import keep_pages

    keep_pages()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    step = make_step(args, device)
    pipe.send(backend_info())
    while pipe.recv():
        begin = time.perf_counter()
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send((time.perf_counter() - begin, loss.item()))
    if device.type == "cuda":
        pipe.send(torch.cuda.max_memory_allocated(device))
    else:
        pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def make_step(args: argparse.Namespace, device: Any) -> Any:
    """The training step of a seeded network on a fixed batch, as a function that returns the loss."""
    import torch

    from maskrcnn_benchmark.config import cfg as defaults
    from maskrcnn_benchmark.modeling.detector import build_detection_model
    from maskrcnn_benchmark.solver import make_optimizer

    cfg = defaults.clone()
    cfg.merge_from_file(str(ROOT / args.config_file))
    cfg.MODEL.DEVICE = device.type
    cfg.SOLVER.BASE_LR = 1e-8  # the weights, and with them the work, stay the same from step to step
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    for name, buffer in model.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.2)  # keeps the activations of a random network in the range of a trained one
    model = model.to(device).train()
    optimizer = make_optimizer(cfg, model)
    images, targets = make_batch(args, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, device)
    dtype = getattr(torch, args.dtype)

    def step() -> torch.Tensor:
        torch.manual_seed(1)  # the same samples each time
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def make_batch(args: argparse.Namespace, num_classes: int, device: Any) -> tuple[Any, Any]:
    """Coarse noise images of BGR range less the mean, each with `--objects` octagons of all sizes."""
    import numpy as np
    import torch

    from maskrcnn_benchmark.structures.bounding_box import BoxList
    from maskrcnn_benchmark.structures.image_list import to_image_list
    from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
    from maskrcnn_benchmark.structures.targets import Targets

    rng = np.random.default_rng(0)
    height, width = args.size
    tensors, boxlists = [], []
    for _ in range(args.batch):
        coarse = rng.uniform(-110, 140, (height // 16 + 1, width // 16 + 1, 3)).repeat(16, 0).repeat(16, 1)
        image = coarse[:height, :width] + rng.uniform(-20, 20, (height, width, 3))
        tensors.append(torch.from_numpy(image).float().permute(2, 0, 1))
        extents = np.exp(rng.uniform(np.log(16), np.log(0.8 * min(height, width)), (args.objects, 2)))
        corners = rng.uniform(0, 1, (args.objects, 2)) * ([width - 1, height - 1] - extents)
        angles = np.arange(8) * np.pi / 4
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5
        polygons = [
            [(corner + circle * extent).ravel().tolist()] for corner, extent in zip(corners, extents, strict=True)
        ]
        boxlist = BoxList(np.concatenate([corners, corners + extents], axis=1), (width, height))
        boxlist.add_field("labels", torch.from_numpy(rng.integers(1, num_classes, args.objects)))
        boxlist.add_field("masks", SegmentationMask(polygons, (width, height), mode="poly"))
        boxlists.append(boxlist)
    return to_image_list(tensors, 32).to(device), Targets.from_boxlists(boxlists).to(device)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both processes in turns; seconds of each step, peak memory and losses by variant."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, kernels = {}, {}, {}
    for variant in VARIANTS:
        pipes[variant], theirs = context.Pipe()
        processes[variant] = context.Process(target=worker, args=(variant, args, theirs), daemon=True)
        processes[variant].start()
        theirs.close()
        kernels[variant] = pipes[variant].recv()["kernels"]
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    losses: dict[str, float] = {}
    for turn in range(args.warmup + args.rounds):
        for variant in VARIANTS if turn % 2 == 0 else VARIANTS[::-1]:
            pipes[variant].send(True)
            elapsed, losses[variant] = pipes[variant].recv()
            if turn >= args.warmup:
                seconds[variant].append(elapsed)
    peak = {}
    for variant in VARIANTS:
        pipes[variant].send(False)
        peak[variant] = pipes[variant].recv()
        processes[variant].join()
    compiled = [name for name, by_device in kernels["compiled"].items() if by_device[args.device] == "compiled"]
    return {"seconds": seconds, "peak_bytes": peak, "losses": losses, "compiled_ops": compiled}


def report(args: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """The figures that are printed and kept."""
    from benchmarks._timing import machine

    medians = {variant: statistics.median(values) for variant, values in measured["seconds"].items()}
    return {
        "config": args.config_file,
        "size": args.size,
        "batch": args.batch,
        "objects": args.objects,
        "dtype": args.dtype,
        "device": args.device,
        "machine": {**machine(), "threads": args.threads},
        "rounds": args.rounds,
        "median_seconds": {variant: round(value, 4) for variant, value in medians.items()},
        "fastest_seconds": {variant: round(min(values), 4) for variant, values in measured["seconds"].items()},
        "ratio_plain_to_compiled": round(medians["plain"] / medians["compiled"], 3),
        "peak_mebibytes": {variant: round(value / MEBIBYTE) for variant, value in measured["peak_bytes"].items()},
        "losses": measured["losses"],
        "compiled_ops": measured["compiled_ops"],
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--objects", type=int, default=12, help="ground truths an image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each variant (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--quick", action="store_true", help="320x448 and 3 rounds")
    parser.add_argument("--out", help="JSON file (default: benchmarks/results/step_<device>.json)")
    args = parser.parse_args()
    if args.quick:
        args.size, args.rounds = [320, 448], 3
    args.out = args.out or str(ROOT / "benchmarks" / "results" / f"step_{args.device}.json")
    return args


def main() -> None:
    """Measure, print, write."""
    args = parse_arguments()
    figures = report(args, measure(args))
    print(
        f"{args.config_file}, {args.size[0]}x{args.size[1]}, batch {args.batch}, {args.dtype}, {args.threads} threads"
    )
    print(f"{'ops':<10} {'median s':>10} {'fastest s':>10} {'peak MiB':>10} {'loss':>10}")
    for variant in VARIANTS:
        print(
            f"{variant:<10} {figures['median_seconds'][variant]:>10.3f} {figures['fastest_seconds'][variant]:>10.3f} "
            f"{figures['peak_mebibytes'][variant]:>10} {figures['losses'][variant]:>10.4f}"
        )
    print(f"plain / compiled: {figures['ratio_plain_to_compiled']:.2f}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
