"""What exported files cost: size, processor time a picture, and average precision on a COCO data set.

    python benchmarks/export.py exported/*.onnx --weights results --images PICTURES --annotations ANNOTATIONS.json

Files run as example/run_onnx.py runs them, on one thread; `--weights` adds PyTorch's row. The precisions of one network
on one set of pictures are comparable with each other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "example"))

from run_onnx import OnnxDetector, annotations_of

from benchmarks._timing import machine
from maskrcnn_benchmark.apps.predict import Predictor

Detect = Callable[[np.ndarray, int], list[dict]]  # (picture, image id) -> COCO annotations with scores


def onnx_detector(path: str) -> Detect:
    """An exported file on one thread."""
    detector = OnnxDetector(path, num_threads=1)
    return lambda picture, image_id: annotations_of(detector(picture), detector.metadata["categories"], image_id, 1)


def torch_detector(weights: str) -> Detect:
    """The same network in PyTorch."""
    predictor = Predictor.from_checkpoint(weights, device="cpu", confidence_threshold=0.0)
    return lambda picture, image_id: predictor.coco_annotations(predictor(picture), image_id=image_id)


def average_precision(ground_truth: COCO, detections: list[dict], kind: str) -> float:
    """AP at IoU 0.50 to 0.95, by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def measure(detect: Detect, ground_truth: COCO, folder: Path) -> dict[str, Any]:
    """Detect on all pictures: AP of boxes and masks, median CPU milliseconds a picture."""
    detections, times = [], []
    for entry in ground_truth.dataset["images"]:
        picture = cv2.imread(str(folder / entry["file_name"]))
        start = time.process_time()
        detections += detect(picture, entry["id"])
        times.append(1000 * (time.process_time() - start))
    kinds = ("bbox", "segm") if "segmentation" in detections[0] else ("bbox",)
    for number, detection in enumerate(detections, start=1):
        detection["id"] = number
    return {
        "ms": float(np.median(times)),
        **{kind: average_precision(ground_truth, detections, kind) for kind in kinds},
    }


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL.onnx")
    parser.add_argument("--weights", help="run folder or .pth of the same network, for a row of PyTorch")
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--json", type=Path, help="write the table there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(args.annotations)
    rows = {}
    print(f"{'file':40} {'MB':>7} {'CPU ms':>8} {'box AP':>8} {'mask AP':>8}")
    sources = [("PyTorch", args.weights)] * bool(args.weights) + [(Path(path).name, path) for path in args.models]
    for name, path in sources:
        row = measure((torch_detector if name == "PyTorch" else onnx_detector)(path), ground_truth, args.images)
        row["mb"] = Path(path).stat().st_size / 1e6 if Path(path).is_file() else float("nan")
        rows[name] = row
        print(f"{name:40} {row['mb']:7.1f} {row['ms']:8.0f} {row['bbox']:8.4f} {row.get('segm', float('nan')):8.4f}")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
