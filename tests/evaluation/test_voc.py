"""Pascal VOC's figures: cases worked by hand, plain loops on random cases, files, the door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets import PascalVOCDataset
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.voc import VocBoxes, match_detections, voc_average_precisions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.data.tiny_voc import write_tiny_voc

BOX, ELSEWHERE = (0, 0, 9, 9), (50, 50, 59, 59)


def rows(*entries) -> VocBoxes:
    """Entries (image, label, box, score or difficult)."""
    images, labels, boxes, values = zip(*entries, strict=True) if entries else ((), (), (), ())
    return VocBoxes(
        np.array(images, int), np.array(labels, int), np.array(boxes, float).reshape(-1, 4), np.array(values)
    )


def both_metrics(detections: VocBoxes, truths: VocBoxes, num_classes: int = 1) -> list[tuple[float, float]]:
    tables = [voc_average_precisions(detections, truths, num_classes, eleven_points=flag) for flag in (True, False)]
    return list(zip(*(table.tolist() for table in tables), strict=True))


def test_both_metrics_by_hand() -> None:
    # By falling score: right, wrong, right; a third object is missed. Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3.
    truths = rows((0, 1, BOX, False), (1, 1, BOX, False), (2, 1, BOX, False))
    detections = rows((1, 1, BOX, 0.7), (0, 1, BOX, 0.9), (2, 1, ELSEWHERE, 0.8))
    # Recalls 0 .. 0.3 are reached with precision 1, 0.4 .. 0.6 with 2/3, the other four never.
    assert both_metrics(detections, truths) == [pytest.approx(((4 + 3 * 2 / 3) / 11, 1 / 3 + 1 / 3 * 2 / 3))]


def test_difficult_objects_count_neither_way() -> None:
    truths = rows((0, 1, BOX, False), (0, 1, ELSEWHERE, True))
    # The surest detection finds the difficult object, twice; the last one the other. All that counts is right.
    detections = rows((0, 1, ELSEWHERE, 0.9), (0, 1, ELSEWHERE, 0.8), (0, 1, BOX, 0.7))
    assert match_detections(detections, truths, iou_threshold=0.5).tolist() == [-1, -1, 1]
    assert both_metrics(detections, truths) == [pytest.approx((1.0, 1.0))]
    only_difficult = rows((0, 1, BOX, True))
    assert np.isnan(both_metrics(detections, only_difficult)).all(), "nothing was to be found"


def test_a_second_detection_of_an_object_is_wrong_and_takes_no_other() -> None:
    # Both cover the first object best; the second one is half covered too, but is not given away.
    truths = rows((0, 1, (0, 0, 9, 9), False), (0, 1, (0, 3, 9, 12), False))
    detections = rows((0, 1, (0, 0, 9, 9), 0.6), (0, 1, (0, 1, 9, 10), 0.9))
    assert match_detections(detections, truths, iou_threshold=0.5).tolist() == [0, 1]


def test_iou_by_hand() -> None:
    # Rows 0 .. 9 against 5 .. 19: 5 shared rows of 20. Rows 0 .. 9 against 0 .. 19: exactly one half, which is enough.
    truths = rows((0, 1, (0, 0, 9, 9), False))
    for box, outcome in (
        ((0, 5, 9, 19), 0),
        ((0, 0, 9, 19), 1),
        ((0, 0, 9, 20), 0),
        ((0, 0, 9, 4), 1),
        ((0, 0, 9, 3), 0),
    ):
        assert match_detections(rows((0, 1, box, 0.5)), truths, iou_threshold=0.5).tolist() == [outcome], box


def test_classes_and_images_do_not_mix() -> None:
    truths = rows((0, 1, BOX, False), (1, 2, BOX, False))
    detections = rows((0, 2, BOX, 0.9), (1, 1, BOX, 0.9), (1, 2, BOX, 0.8))
    # Class 2: wrong, then right, precision 1/2 at recall 1. Class 3 has no ground truth.
    figures = both_metrics(detections, truths, 3)
    assert figures[:2] == [(0.0, 0.0), pytest.approx((0.5, 0.5))]
    assert np.isnan(figures[2]).all()
    assert both_metrics(rows(), truths, 2) == [(0.0, 0.0)] * 2
    assert np.isnan(both_metrics(rows(), rows(), 1)).all()


def plain_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_average_precision(detections, truths, label: int, *, eleven_points: bool) -> float:
    """The protocol one detection at a time."""
    wanted = [(t[0], t[2], t[3]) for t in truths if t[1] == label]
    num_objects = sum(not difficult for _, _, difficult in wanted)
    if not num_objects:
        return float("nan")
    taken, outcomes = set(), []
    for image, _, box, _ in sorted((d for d in detections if d[1] == label), key=lambda d: -d[3]):
        best, best_iou = None, -1.0
        for number, (other, candidate, _) in enumerate(wanted):
            if other == image and plain_iou(box, candidate) > best_iou:
                best, best_iou = number, plain_iou(box, candidate)
        if best_iou >= 0.5 and wanted[best][2]:
            continue
        outcomes.append(best_iou >= 0.5 and best not in taken)
        if best_iou >= 0.5:
            taken.add(best)
    curve = [(sum(outcomes[:n]) / num_objects, sum(outcomes[:n]) / n) for n in range(1, len(outcomes) + 1)]
    if eleven_points:
        return sum(max([p for r, p in curve if r >= k * 0.1], default=0.0) for k in range(11)) / 11
    area, before = 0.0, 0.0
    for recall, _ in curve:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area


@pytest.mark.parametrize("seed", range(6))
def test_random_cases_equal_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(0, 12, (count, 2))
        return np.concatenate([corners, corners + rng.integers(6, 14, (count, 2))], axis=1)

    def entries(count: int, values) -> list[tuple]:
        images, labels = rng.integers(0, 5, count).tolist(), rng.integers(1, 4, count).tolist()
        return list(zip(images, labels, map(tuple, boxes(count).tolist()), values, strict=True))

    truths = entries(30, (rng.random(30) < 0.25).tolist())
    # A score occurs once: the order of equal ones is not part of the protocol.
    detections = entries(120, (rng.permutation(120) / 120).tolist())
    found = both_metrics(rows(*detections), rows(*truths), 3)
    expected = [
        tuple(plain_average_precision(detections, truths, label, eleven_points=flag) for flag in (True, False))
        for label in (1, 2, 3)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert 0.05 < np.mean(expected) < 0.95


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PascalVOCDataset:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return PascalVOCDataset(write_tiny_voc(tmp_path / "VOC2007"), "train")


def perfect_predictions(dataset: PascalVOCDataset) -> dict[int, BoxList]:
    """What is annotated, difficult objects left out, in an image twice as large."""
    predictions = {}
    for index in range(len(dataset)):
        truth = dataset.get_groundtruth(index)
        truth = truth[~truth.get_field("difficult")]
        width, height = truth.size
        prediction = truth.resize((2 * width, 2 * height))
        prediction.add_field("scores", torch.linspace(0.9, 0.5, len(truth)))
        predictions[index] = prediction
    return predictions


def test_files_and_text(dataset: PascalVOCDataset, tmp_path: Path, caplog) -> None:
    expected = [("bbox", "AP", (1.0, 0.01)), ("bbox", "AP-dog", (0.2, 0.01))]
    with caplog.at_level("INFO", logger="maskrcnn_benchmark.inference"):
        figures, results = evaluate(
            dataset,
            perfect_predictions(dataset),
            tmp_path,
            box_only=False,
            iou_types=("bbox", "segm"),
            expected_results=expected,
            expected_results_sigma_tol=4,
        )
    assert figures.results["bbox"]["AP"] == figures.results["bbox"]["AP_area"] == pytest.approx(1.0)
    assert figures.results["bbox"]["AP-bottle"] == figures.results["bbox"]["AP-sofa"] == -1.0, "nothing to be found"
    lines = (tmp_path / "result.txt").read_text().splitlines()
    assert lines[:2] == ["mAP: 1.0000", "aeroplane       : -1.0000"]
    assert lines[12] == "dog             : 1.0000"
    assert len(lines) == 21
    assert json.loads((tmp_path / "voc_results.json").read_text()) == figures.results
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["kind"], report["figures"]) == ("voc", figures.results)
    for entry in report["tasks"]["bbox"]["classes"]:
        assert entry["AP"] == figures.results["bbox"][f"AP-{entry['name']}"]
        assert entry["AP_area"] == figures.results["bbox"][f"AP_area-{entry['name']}"]
    assert json.loads((tmp_path / "bbox.json").read_text()) == results["bbox"]
    assert results["bbox"][0]["image_id"] == "000007"
    assert results["bbox"][0]["category_id"] == 12
    assert results["bbox"][0]["bbox"] == pytest.approx([10, 5, 30, 45], abs=1)
    assert [
        word for word in ("PASS: bbox > AP ", "FAIL: bbox > AP-dog ", "not evaluated: segm") if word not in caplog.text
    ] == []
    assert "AP" in repr(figures)


def test_missing_predictions_and_proposals(dataset: PascalVOCDataset, caplog) -> None:
    predictions = perfect_predictions(dataset)
    del predictions[1]
    figures, _ = evaluate(dataset, predictions, None)
    assert figures.results["bbox"]["AP-car"] == -1.0, "the image with the car is left out"
    assert "Only 3 of 4 images have predictions" in caplog.text
    with pytest.raises(ValueError, match="_cocostyle"):
        evaluate(dataset, predictions, None, box_only=True)


def test_an_unknown_evaluation_is_named(dataset: PascalVOCDataset) -> None:
    dataset.evaluation = "lvis"
    with pytest.raises(
        ValueError, match=r"PascalVOCDataset declares the evaluation 'lvis'; there are coco, voc, cityscapes"
    ):
        evaluate(dataset, {}, None)
