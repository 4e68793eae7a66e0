"""How far thresholds and contours get on the shapes data set: the demo is no toy as long as this stays below 0.25 AP.

A fair effort without learning: regions that stand out from their surroundings are proposed by several means (Otsu and
adaptive thresholds of lightness and colour channels, k-means colour clusters, closed edges), cleaned by morphology,
and classified by contour measures against templates of the shapes at all angles. Overlapping proposals are
reduced by their fit to the best template.

    python benchmarks/demo_baseline.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import machine
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset
from maskrcnn_benchmark.data.synthetic_scene import SHAPE_NAMES, shape_rings
from maskrcnn_benchmark.evaluation import evaluate_detections

AP_LIMIT = 0.25
MIN_SIDE, MAX_SIDE, MIN_AREA = 8, 104, 30
TEMPLATE_SIDE, NUM_ANGLES = 32, 12


@dataclass
class Candidate:
    """A region bool [H, W] with its class index and fit to that class, 0 to 1."""

    mask: np.ndarray
    label: int
    fit: float


def detect(image: np.ndarray) -> list[Candidate]:
    """Shapes in a BGR image by thresholds and contours, best first, without near duplicates."""
    smooth = cv2.bilateralFilter(image, 7, 45, 5)
    candidates = [classify(region) for binary in binarisations(smooth) for region in regions(binary)]
    return suppress(sorted(candidates, key=lambda c: -c.fit), iou_threshold=0.5)


def binarisations(image: np.ndarray) -> Iterator[np.ndarray]:
    """Binary images uint8 0/1 in which a shape may be one component."""
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    for channel in (*cv2.split(lab), hsv[..., 1]):
        _, high = cv2.threshold(channel, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        yield from (high, 1 - high)
        for window in (31, 101):
            for offset in (-12, 12):
                local = cv2.adaptiveThreshold(channel, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, window, offset)
                yield local if offset < 0 else 1 - local
    # Contrast in colour with the wide surroundings.
    distance = np.linalg.norm(lab.astype(np.float32) - cv2.blur(lab, (121, 121)).astype(np.float32), axis=2)
    for level in (30, 45, 60):
        yield (distance > level).astype(np.uint8)
    # Colour clusters.
    for clusters in (6, 12):
        samples = lab.reshape(-1, 3).astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 1.0)
        cv2.setRNGSeed(0)
        _, labels, _ = cv2.kmeans(samples, clusters, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
        labels = labels.reshape(lab.shape[:2])
        yield from ((labels == k).astype(np.uint8) for k in range(clusters))
    # The areas that edges enclose.
    for low in (40, 90):
        edges = np.max([cv2.Canny(channel, low, 2.5 * low) for channel in cv2.split(lab)], axis=0)
        yield (cv2.dilate(edges, np.ones((2, 2))) == 0).astype(np.uint8)


def regions(binary: np.ndarray) -> Iterator[np.ndarray]:
    """Components of plausible size, bool [H, W], after opening and closing."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    for steps in (1, 2):
        opened = cv2.morphologyEx(binary, cv2.MORPH_OPEN, kernel, iterations=steps)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        for index in range(1, count):
            _, _, width, height, area = stats[index]
            if min(width, height) >= MIN_SIDE and max(width, height) <= MAX_SIDE and area >= MIN_AREA:
                region = (labels == index).astype(np.uint8)
                yield cv2.morphologyEx(region, cv2.MORPH_CLOSE, kernel, iterations=steps).astype(bool)


def classify(region: np.ndarray) -> Candidate:
    """The class whose best turned template overlaps the region most; IoU is the fit."""
    ys, xs = np.nonzero(region)
    crop = region[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.float32)
    small = cv2.resize(crop, (TEMPLATE_SIDE, TEMPLATE_SIDE), interpolation=cv2.INTER_AREA).ravel()
    bank, labels = templates()
    inter = np.minimum(bank, small).sum(axis=1)
    ious = inter / np.maximum(bank, small).sum(axis=1)
    best = int(ious.argmax())
    return Candidate(region, int(labels[best]), float(ious[best]))


@cache
def templates() -> tuple[np.ndarray, np.ndarray]:
    """Every class at every angle, stretched to its box: float32 [T, side * side], and the labels [T]."""
    bank, labels = [], []
    for label, name in enumerate(SHAPE_NAMES):
        for step in range(NUM_ANGLES):
            for stretch in (0.8, 1.0):
                angle = np.pi * step / NUM_ANGLES
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                rings = [ring @ np.diag([stretch, 1.0]) @ turn for ring in shape_rings(name)]
                low, high = rings[0].min(axis=0), rings[0].max(axis=0)
                points = [((r - low) / (high - low) * (TEMPLATE_SIDE - 1) * 16).round().astype(np.int32) for r in rings]
                canvas = np.zeros((TEMPLATE_SIDE, TEMPLATE_SIDE), dtype=np.uint8)
                cv2.fillPoly(canvas, points, 1, cv2.LINE_8, 4)
                bank.append(canvas.ravel().astype(np.float32))
                labels.append(label)
    return np.stack(bank), np.array(labels)


def suppress(candidates: list[Candidate], *, iou_threshold: float) -> list[Candidate]:
    """Greedy suppression by mask overlap, best fit first."""
    if not candidates:
        return []
    masks = np.stack([c.mask for c in candidates], axis=-1).astype(np.uint8)
    rles = mask_utils.encode(np.asfortranarray(masks))
    overlaps = np.asarray(mask_utils.iou(rles, rles, [0] * len(rles)))
    kept: list[int] = []
    for index in range(len(candidates)):
        if all(overlaps[index, other] <= iou_threshold for other in kept):
            kept.append(index)
    return [candidates[index] for index in kept[:100]]


def run(img_dir: str, ann_file: str) -> dict[str, float]:
    """Detect on every image of the data set and return bbox and segm AP."""
    coco = COCO(ann_file)
    detections = []
    for image_id, info in coco.imgs.items():
        for candidate in detect(cv2.imread(str(Path(img_dir, info["file_name"])))):
            rle = mask_utils.encode(np.asfortranarray(candidate.mask.astype(np.uint8)))
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": candidate.label + 1,
                    "bbox": mask_utils.toBbox(rle).tolist(),
                    "segmentation": rle,
                    "score": candidate.fit,
                }
            )
    return {kind: float(evaluate_detections(coco, detections, kind).stats[0]) for kind in ("bbox", "segm")}


def main() -> None:
    """Measure, print, write; fails when the data set is too easy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="datasets/shapes", help="folder of the generated data sets")
    parser.add_argument("--num-images", type=int, default=100)
    parser.add_argument("--image-size", type=int, default=224, help="side of a picture, as in the demo's config")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/demo_baseline.json")
    args = parser.parse_args()
    data = ensure_shapes_dataset(
        args.data_dir, split="val", num_images=args.num_images, seed=args.seed, image_size=args.image_size
    )
    start = time.process_time()
    figures = run(*data)
    report = {
        "limit": AP_LIMIT,
        **figures,
        "images": args.num_images,
        "cpu_seconds": round(time.process_time() - start, 1),
        "machine": machine(),
        "opencv": cv2.__version__,
    }
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Path(args.out).write_text(json.dumps(report, indent=2) + "\n")
    print(f"threshold-and-contour baseline: bbox AP {figures['bbox']:.3f}, segm AP {figures['segm']:.3f}")
    if max(figures.values()) >= AP_LIMIT:
        raise SystemExit(f"the baseline reaches {AP_LIMIT} AP: the data set is too easy")


if __name__ == "__main__":
    main()
