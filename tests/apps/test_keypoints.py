"""A model of keypoints through the programs: train, test, predict, draw."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.apps.drawing import DrawnKeypoints, draw_detections, draw_keypoints
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_files import predict_files
from tests.apps.tiny_run import tiny_run
from tests.data.tiny_keypoints import write_tiny_keypoints

__all__ = ["tiny_run"]  # a fixture

KEYS = {
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 2,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES": "(0.25, 0.125, 0.0625, 0.03125)",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 4,
    "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION": 16,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS": "(16,)",
    "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.0,
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 5,
}
RED, GREEN = (0, 0, 255), (0, 255, 0)


def test_train_test_and_predict(tiny_run, capsys):
    tiny_run.data = write_tiny_keypoints(tiny_run.folder / "persons")
    tiny_run.train(keys=KEYS)
    rows = [json.loads(line) for line in (tiny_run.output / "metrics.jsonl").read_text().splitlines()]
    assert any("loss_kp" in row for row in rows)
    capsys.readouterr()
    tiny_run.test(keys={**KEYS, "TEST.EXPECTED_RESULTS": "(('keypoints', 'AP', (0.0, 2.0)),)"})
    out = capsys.readouterr().out
    folder = tiny_run.output / "inference" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "bbox.json", "keypoints.json", "coco_results.pth", "evaluation.json", "predictions.pth",
    }  # fmt: skip
    detections = json.loads((folder / "keypoints.json").read_text())
    assert {len(detection["keypoints"]) for detection in detections} == {51}
    assert "Task: keypoints" in out
    assert "PASS: keypoints > AP" in out

    predictor = Predictor.from_checkpoint(tiny_run.output, device="cpu", confidence_threshold=0.0)
    assert not predict_files(predictor, [str(tiny_run.data.root)], tiny_run.folder / "pictures")
    written = json.loads((tiny_run.folder / "pictures" / "predictions.json").read_text())
    assert written["annotations"]
    assert {(len(a["keypoints"]), a["num_keypoints"]) for a in written["annotations"]} == {(51, 17)}
    image = cv2.imread(str(tiny_run.data.root / "image_40.jpg"))
    prediction = predictor(image)
    keypoints = prediction.get_field("keypoints")
    assert keypoints.size == (80, 60)
    low, high = prediction.bbox[:, None, :2], prediction.bbox[:, None, 2:]
    assert ((keypoints.keypoints[..., :2] >= low - 1) & (keypoints.keypoints[..., :2] <= high + 1)).all()
    drawn = []
    for logit in (-1.0, 5.0):
        keypoints.add_field("logits", torch.full((len(keypoints), 17), logit))
        drawn.append(predictor.draw(image, prediction, scale=4))
    assert (drawn[0] != drawn[1]).any()


def test_only_shown_points_and_lines_between_them_are_drawn():
    canvas = np.zeros((40, 60, 3), dtype=np.uint8)
    points = np.array([[10, 10], [30, 10], [50, 30]])
    draw_keypoints(canvas, points, np.array([True, True, False]), RED, connections=[(0, 1), (1, 2)])
    assert canvas[10, 20, 2] > 200  # on the line
    assert canvas[10, 10].tolist() == list(RED)
    assert not canvas[25:].any()  # neither the third point nor the line to it


@pytest.mark.parametrize("scale", [1, 3])
def test_points_lie_on_the_pixels_of_the_enlarged_picture(scale):
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    keypoints = DrawnKeypoints(np.array([[[30.0, 25.0]]]), np.array([[True]]))
    arguments = (image, np.array([[5, 5, 50, 35]]), [""])
    with_points = draw_detections(*arguments, colours=[GREEN], keypoints=keypoints, scale=scale)
    changed = np.argwhere((with_points != draw_detections(*arguments, colours=[GREEN], scale=scale)).any(axis=2))
    centre = changed.mean(axis=0)
    assert centre.tolist() == pytest.approx([25.5 * scale - 0.5, 30.5 * scale - 0.5], abs=0.5)
    assert not image.any()
