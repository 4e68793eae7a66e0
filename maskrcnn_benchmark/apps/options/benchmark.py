"""The options of tools/benchmark.py."""

from __future__ import annotations

import argparse

from maskrcnn_benchmark.utils.launch import get_local_rank

TASKS = ("train", "inference")
# Names for --variants.
VARIANTS: dict[str, tuple[str, ...]] = {
    "config": (),
    "nchw": ("NHWC", "False"),
    "nhwc": ("NHWC", "True"),
    "eager": ("MODEL.CAPTURE", "eager"),
    "cuda_graphs": ("MODEL.CAPTURE", "cuda_graphs"),
    "compile": ("MODEL.CAPTURE", "compile"),
    "fixed_slots": ("MODEL.ROI_MASK_HEAD.FIXED_SLOTS", "True"),
    "deterministic": ("DETERMINISTIC", "True"),
}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure training and inference; see docs/performance.md")
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="config to merge over the defaults")
    add("--local_rank", "--local-rank", dest="local_rank", type=int, default=get_local_rank())
    add("--task", default="train", metavar="LIST", help=f"what is measured: {','.join(TASKS)} (default: %(default)s)")
    add("--synthetic", action="store_true", help="invented batches and a random network: no data, no weights")
    add("--image-size", type=int, nargs=2, metavar=("H", "W"), help="of invented photos; default: as in COCO")
    add("--positives", type=int, default=64, metavar="N", help="positive regions of an invented image (default: 64)")
    add("--batch-sizes", metavar="LIST", help="images a process, such as 1,2,8; default: the config's")
    add("--dtypes", metavar="LIST", help="of float32,tf32,float16,bfloat16; default: the config's")
    variants = f"each a few settings joined by +: KEY=VALUE, or one of {', '.join(VARIANTS)}"
    add("--variants", default="config", metavar="LIST", help=variants)
    add("--warmup", type=int, metavar="N", help="steps before (default: 10 on a GPU, 2 on the CPU)")
    iterations = "measured steps (default: 50 on a GPU, 5 on the CPU); 0: SOLVER.MAX_ITER, or the test set once"
    add("--iterations", type=int, metavar="N", help=iterations)
    stages = "further steps, whose stages are measured (default: 10 on a GPU, 2 on the CPU)"
    add("--stage-iterations", type=int, metavar="N", help=stages)
    add("--no-flops", action="store_true", help="do not count operations, which takes one step")
    add("--peak-tflops", type=float, metavar="X", help="of the device, for MFU; default: known for common GPUs")
    add("--profile", metavar="FILE", help="also write a trace of some steps of each row, for chrome://tracing")
    add("--out", metavar="FILE", help="write all figures as JSON")
    add("--json-summary", metavar="FILE", help="write the figures of the last row in DLLogger's format")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values that win over the file")
    return parser
