"""Cityscapes' figures: those of cityscapesscripts, cases worked by hand, files."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.data.datasets import CityScapesDataset
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.cityscapes import GroundTruth, average_precisions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.data.tiny_cityscapes import write_tiny_cityscapes
from tests.evaluation.cityscapes_cases import LABEL_IDS, SEEDS, figures_of_the_package, make_cases

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cityscapes_ap.json").read_text())
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)


def result(label: int, score: float, mask: np.ndarray) -> dict:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    x, y, width, height = mask_utils.toBbox(rle).tolist()
    return {"category_id": label, "score": score, "segmentation": rle, "bbox": [x, y, width, height]}


def table_of(images: list[tuple[np.ndarray, list[dict]]], iou_type: str = "segm") -> np.ndarray:
    """AP of each label at each threshold, [8, 10]."""
    overlaps = [GroundTruth(ids, LABEL_IDS, VOID_IDS).overlaps(found, iou_type) for ids, found in images]
    return np.array([average_precisions([each[label] for each in overlaps]) for label in LABEL_IDS])


def our_figures(seed: int) -> dict[str, list | float]:
    table = table_of([(case.ids, [result(*item) for item in case.detections]) for case in make_cases(seed)])
    return {"ap": table, "AP": np.nanmean(table), "AP50": np.nanmean(table[:, 0])}


def assert_same_figures(found: dict, expected: dict) -> None:
    table = np.array([[np.nan if value is None else value for value in row] for row in expected["ap"]])
    np.testing.assert_allclose(found["ap"], table, rtol=0, atol=1e-12)
    assert found["AP"] == pytest.approx(expected["AP"], abs=1e-12)
    assert found["AP50"] == pytest.approx(expected["AP50"], abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_of_cityscapesscripts(seed: int) -> None:
    """The figures were computed by cityscapesscripts 2.3.0; tests/evaluation/cityscapes_cases.py prints them."""
    assert_same_figures(our_figures(seed), GOLDEN[str(seed)])


def test_the_package_itself(tmp_path: Path) -> None:
    if importlib.util.find_spec("cityscapesscripts") is None:
        pytest.skip("cityscapesscripts is not installed; its recorded figures are compared instead")
    seed = max(SEEDS) + 1
    with contextlib.redirect_stdout(io.StringIO()):
        expected = figures_of_the_package(make_cases(seed), tmp_path)
    assert_same_figures(our_figures(seed), expected)


ROAD, VOID, CAR_GROUP, CAR = 7, 4, 26, 26000


def scene(**regions: tuple[slice, slice]) -> np.ndarray:
    """Road of 40 x 60 pixels with rectangles."""
    ids = np.full((40, 60), ROAD, dtype=np.uint16)
    for name, place in regions.items():
        ids[place] = {"void": VOID, "group": CAR_GROUP}.get(name, CAR + len(name))
    return ids


def box(rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((40, 60), dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


CAR_AT = (slice(0, 10), slice(0, 20))  # 200 pixels
OTHER_AT = (slice(20, 30), slice(0, 20))


def cars(ids: np.ndarray, *detections: tuple[float, np.ndarray]) -> np.ndarray:
    """AP of cars at each threshold, [10]."""
    return table_of([(ids, [result(26, score, mask) for score, mask in detections])])[2]


def test_a_curve_by_hand() -> None:
    ids = scene(car=CAR_AT, other=OTHER_AT)
    # Two right ones of different scores: the curve (0, 1), (1/2, 1), (1, 1); its points stand for halves of the ways.
    right, other = box((0, 10), (0, 20)), box((20, 30), (0, 20))
    assert cars(ids, (0.9, right), (0.8, other)).tolist() == [1.0] * 10
    # Right at 1/2, then wrong: (0, 1), (1/2, 1), (1/2, 1/2). The widths are 1/4, 1/4, 0.
    assert cars(ids, (0.9, right), (0.8, box((30, 40), (30, 50)))) == pytest.approx([0.5] * 10)
    # Wrong first: (0, 1), (0, 0), (1/2, 1/2), of widths 0, 1/4, 1/4.
    assert cars(ids, (0.8, right), (0.9, box((30, 40), (30, 50)))) == pytest.approx([1 / 8] * 10)
    # IoU 12 / 20: right below 0.6.
    part = box((0, 10), (0, 12))
    assert cars(ids, (0.9, part)) == pytest.approx([0.5] * 2 + [0.0] * 8)
    # Found twice: the surer one is right, the other wrong: (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3), of equal widths.
    found = cars(ids, (0.8, other), (0.85, right), (0.9, right))
    assert found == pytest.approx([(1 + 1 + 1 / 2 + 2 / 3) / 4] * 10)


def test_exactly_the_threshold_is_not_enough() -> None:
    assert cars(scene(car=CAR_AT), (0.9, box((0, 10), (0, 10))))[0] == 0.0
    assert cars(scene(car=CAR_AT), (0.9, box((0, 10), (0, 11))))[0] == 1.0


def test_what_counts_neither_way() -> None:
    right = box((0, 10), (0, 20))
    regions = {"void": (slice(20, 40), slice(30, 50)), "group": (slice(20, 40), slice(0, 20))}
    ids = scene(car=CAR_AT, **regions)
    for place in (box((20, 40), (30, 50)), box((20, 40), (0, 20))):  # on void, on a group
        assert cars(ids, (0.8, right), (0.9, place)).tolist() == [1.0] * 10
    # 12 of 20 columns lie on void: ignored below 0.6, wrong from there on.
    half = box((20, 40), (38, 58))
    assert cars(ids, (0.8, right), (0.9, half)) == pytest.approx([1.0] * 2 + [0.25] * 8)
    # Nine by ten pixels are too small to be found or missed.
    small = scene(car=CAR_AT, small=(slice(30, 39), slice(0, 10)))
    assert cars(small, (0.8, right)).tolist() == [1.0] * 10
    assert cars(small, (0.8, right), (0.9, box((30, 39), (0, 10)))).tolist() == [1.0] * 10
    assert np.isnan(cars(scene(small=(slice(30, 39), slice(0, 10))), (0.9, right))).all()
    assert cars(scene(car=CAR_AT)).tolist() == [0.0] * 10


def test_boxes_go_by_the_same_rules() -> None:
    detection = {"category_id": 26, "score": 0.9, "bbox": [0.0, 0.0, 20.0, 10.0]}
    ids = scene(car=CAR_AT)
    ids[2:8, 2:18] = ROAD  # a frame of 104 pixels in the box of 200
    assert table_of([(ids, [detection])], "bbox")[2].tolist() == [1.0] * 10
    detection["bbox"] = [0.0, 0.0, 20.0, 7.0]
    assert table_of([(ids, [detection])], "bbox")[2].tolist() == [1.0] * 4 + [0.0] * 6  # 0.7 is not above 0.7


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CityScapesDataset:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = write_tiny_cityscapes(tmp_path / "cityscapes", ("val",))
    return CityScapesDataset(tree / "leftImg8bit", tree / "gtFine", "val", "poly")


def predictions_of(dataset: CityScapesDataset) -> dict[int, BoxList]:
    """The drawn rectangles as detections with full masks, in an image twice as large."""
    predictions = {}
    for index in range(len(dataset)):
        truth = dataset.load_targets(index)
        height, width = truth.image_size
        prediction = BoxList(torch.from_numpy(truth.boxes * 2), (2 * width, 2 * height), mode="xyxy")
        prediction.add_field("labels", torch.from_numpy(truth.labels))
        prediction.add_field("scores", torch.linspace(0.9, 0.5, len(truth)))
        prediction.add_field("mask", torch.ones(len(truth), 1, 28, 28))
        predictions[index] = prediction
    return predictions


def test_files_and_text(dataset: CityScapesDataset, tmp_path: Path, caplog) -> None:
    predictions = predictions_of(dataset)
    with caplog.at_level("INFO", logger="maskrcnn_benchmark.inference"):
        figures, results = evaluate(
            dataset,
            predictions,
            tmp_path,
            iou_types=("bbox", "segm"),
            expected_results=[("segm", "AP50-person", (0.9, 1.0)), ("bbox", "AP", (0.0, 1e-6))],
        )
    segm = figures.results["segm"]
    assert "AP-caravan" not in segm, "not evaluated"
    assert segm["AP-train"] == segm["AP50-truck"] == -1.0, "nothing to be found"
    assert segm["AP50-person"] == figures.results["bbox"]["AP50-person"] == 1.0
    assert 0 < segm["AP-car"] < segm["AP50-car"] <= 1.0, "the drawn car reaches behind the person"
    lines = (tmp_path / "result.txt").read_text().splitlines()
    assert lines[0].split() == ["bbox", "AP", "AP50"]
    assert lines[10].split() == ["segm", "AP", "AP50"]
    assert lines[19].split() == ["average", f"{segm['AP']:.4f}", f"{segm['AP50']:.4f}"]
    assert json.loads((tmp_path / "cityscapes_results.json").read_text()) == figures.results
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["kind"], report["figures"]) == ("cityscapes", figures.results)
    for task, own in report["tasks"].items():
        assert [entry["AP50"] for entry in own["classes"]] == [
            figures.results[task][f"AP50-{entry['name']}"] for entry in own["classes"]
        ]
    written = json.loads((tmp_path / "segm.json").read_text())
    assert written == results["segm"]
    assert {row["image_id"] for row in written} == {dataset.ids[0], dataset.ids[1], dataset.ids[3]}
    assert {row["category_id"] for row in written} == {24, 25, 26, 28, 29, 33}
    assert "PASS: segm > AP50-person" in caplog.text
    assert "FAIL: bbox > AP " in caplog.text


def test_some_images_and_what_is_not_evaluated(dataset: CityScapesDataset, caplog) -> None:
    predictions = predictions_of(dataset)
    figures, _ = evaluate(dataset, {1: predictions[1]}, None, iou_types=("segm",))
    assert (figures.results["segm"]["AP50"], figures.results["segm"]["AP-car"]) == (1.0, -1.0)
    assert "Only 1 of 4 images have predictions" in caplog.text
    with pytest.raises(ValueError, match="_cocostyle"):
        evaluate(dataset, predictions, None, box_only=True)
    with pytest.raises(ValueError, match="not by keypoints"):
        evaluate(dataset, predictions, None, iou_types=("bbox", "keypoints"))
