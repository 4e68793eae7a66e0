"""COCO's figures for a result file: bbox.json, segm.json or keypoints.json, of this program or any other.

python example/evaluate_results.py ANNOTATIONS.json bbox.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pycocotools.coco import COCO

from maskrcnn_benchmark.evaluation import CocoResults, evaluate_detections

if __name__ == "__main__":
    annotations, result_file = sys.argv[1:]
    detections = json.loads(Path(result_file).read_text())
    kinds = {"segmentation": "segm", "keypoints": "keypoints"}
    iou_type = next((kind for key, kind in kinds.items() if detections and key in detections[0]), "bbox")
    results = CocoResults(iou_type)
    results.update(evaluate_detections(COCO(annotations), detections, iou_type))
    print(f"{iou_type} AP {results.results[iou_type]['AP']:.3f}")
