"""How long a training step waits for a checkpoint: written at once, and written beside the training.

    python benchmarks/checkpoint.py                        R-50-FPN on the CPU, to a temporary folder
    python benchmarks/checkpoint.py --device cuda --folder /results/tmp     from a GPU, to the disk that counts

Both kinds are saved in turns. While the second kind is being written, the time of the same matrix products as before
says what the writer takes from the training on a CPU; on a GPU the products run there. Prints a table and writes
benchmarks/results/checkpoint_<device>.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks._timing import Measurement, print_table, write_results
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.files import check_sums
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.utils.allocator import keep_pages

ROOT = Path(__file__).resolve().parent.parent


def make_checkpointer(config_file: Path, device: torch.device, folder: str) -> DetectronCheckpointer:
    """A network with momentum, as in the midst of a training run."""
    cfg = defaults.clone()
    cfg.merge_from_file(str(config_file))
    cfg.MODEL.DEVICE = device.type
    model = build_detection_model(cfg).to(device)
    optimizer = make_optimizer(cfg, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scheduler = make_lr_scheduler(cfg, optimizer)
    return DetectronCheckpointer(cfg, model, optimizer, scheduler, folder, save_to_disk=True)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, the work that it leaves to a GPU included."""
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long a training step waits for a checkpoint")
    parser.add_argument("--config-file", default=str(ROOT / "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"), metavar="FILE")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--folder", default=None, help="where checkpoints go (default: the system's temporary folder)")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    device = torch.device(args.device)
    keep_pages()
    matrix = torch.randn(1024, 1024, device=device)

    def compute() -> None:
        for _ in range(10):
            matrix @ matrix

    names = ("waits, written at once", "waits, written beside it", "write beside it", "checksums at a resume")
    names += ("products alone", "products beside a write")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = make_checkpointer(Path(args.config_file), device, folder)
        path = Path(folder) / "model_final.pth"
        for round_number in range(args.rounds + 1):  # the first one warms up
            found = [
                seconds(lambda: run.try_save("model_final", in_background=False), device),
                seconds(lambda: run.try_save("model_final", in_background=True), device),
                seconds(run.wait, device),
                seconds(lambda: check_sums(str(path)), device),
                seconds(compute, device),
            ]
            run.try_save("model_final", in_background=True)
            found.append(seconds(compute, device))
            run.wait()
            if round_number:
                for name, value in zip(names, found, strict=True):
                    times[name].append(value)
        size = path.stat().st_size
    measured = {name: Measurement(tuple(values), None) for name, values in times.items()}
    print(f"{size / 2**20:.0f} MiB a checkpoint, {args.rounds} rounds")
    print_table(
        ("what", "median ms", "quartiles apart ms"),
        [(name, each.median * 1e3, each.spread * 1e3) for name, each in measured.items()],
    )
    ratio = statistics.median(a / b for a, b in zip(times[names[0]], times[names[1]], strict=True))
    print(f"A step waits {ratio:.1f} times shorter.")
    rows = [{"what": name, **each.as_dict()} for name, each in measured.items()]
    print(write_results(f"checkpoint_{device.type}", rows, checkpoint_mib=round(size / 2**20, 1), ratio=ratio))


if __name__ == "__main__":
    main()
