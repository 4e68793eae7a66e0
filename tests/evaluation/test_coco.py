"""The COCO evaluator: the published figures, perfect and empty predictions, files, expected results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.evaluation import (
    CocoResults,
    check_expected_results,
    evaluate,
    evaluate_detections,
    load_predictions,
    save_predictions,
    write_results,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList

WIDTH, HEIGHT = 60, 40
CATEGORY_IDS = (7, 3)  # the order of the json, not sorted


class FakeDataset:
    """Three images, two of them with objects; boxes that are their own masks."""

    def __init__(self) -> None:
        boxes = {11: [(5, 6, 20, 10), (30, 10, 12, 25)], 12: [(0, 0, 60, 40)]}
        labels = {11: [1, 2], 12: [2]}
        self.boxes, self.labels = boxes, labels
        self.id_to_img_map = {0: 11, 1: 12, 2: 13}
        self.contiguous_category_id_to_json_id = {1: CATEGORY_IDS[0], 2: CATEGORY_IDS[1]}
        annotations = []
        for image_id, image_boxes in boxes.items():
            for box, label in zip(image_boxes, labels[image_id], strict=True):
                x, y, w, h = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": CATEGORY_IDS[label - 1],
                        "bbox": list(box),
                        "area": w * h,
                        "iscrowd": 0,
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
        self.coco = COCO()
        self.coco.dataset = {
            "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in (11, 12, 13)],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in CATEGORY_IDS],
        }
        self.coco.createIndex()

    def get_img_info(self, index: int) -> dict:
        return self.coco.imgs[self.id_to_img_map[index]]

    def prediction(self, index: int, *, scale: float = 2.0) -> BoxList:
        """The ground truth of an image as a network working at `scale` would predict it."""
        image_id = self.id_to_img_map[index]
        boxes = torch.tensor(self.boxes.get(image_id, []), dtype=torch.float32).reshape(-1, 4)
        result = BoxList(boxes, (WIDTH, HEIGHT), mode="xywh").convert("xyxy")
        result = result.resize((int(WIDTH * scale), int(HEIGHT * scale)))
        result.add_field("labels", torch.tensor(self.labels.get(image_id, []), dtype=torch.int64))
        result.add_field("scores", torch.linspace(0.9, 0.6, len(boxes)))
        result.add_field("objectness", torch.linspace(0.9, 0.6, len(boxes)))
        result.add_field("mask", torch.ones(len(boxes), 1, 28, 28))
        return result


@pytest.fixture
def dataset() -> FakeDataset:
    return FakeDataset()


@pytest.mark.parametrize(("iou_type", "file_name"), [("bbox", "fakebbox100"), ("segm", "fakesegm100")])
def test_published_figures(external_data: Callable[[str], Path], iou_type: str, file_name: str) -> None:
    folder = external_data("coco_eval_val2014_100")
    published: dict[str, list[float]] = {}
    for line in (folder / "val2014_fake_eval_res.txt").read_text().splitlines():
        if line.startswith("type="):
            task = line.removeprefix("type=")
        elif " = " in line:
            published.setdefault(task, []).append(float(line.rsplit("=", 1)[1]))
    coco = COCO(str(folder / "instances_val2014_100.json"))
    detections = json.loads((folder / f"instances_val2014_{file_name}_results.json").read_text())
    results = CocoResults(iou_type)
    results.update(evaluate_detections(coco, detections, iou_type))
    assert len(published[iou_type]) == 12
    assert [round(value, 3) for value in results.results[iou_type].values()] == published[iou_type]


def test_perfect_predictions_score_one(dataset: FakeDataset, tmp_path: Path) -> None:
    predictions = [dataset.prediction(index) for index in range(3)]
    results, coco_results = evaluate(dataset, predictions, tmp_path, iou_types=("bbox", "segm"))
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    # The published way of pasting shifts borders by up to a pixel, which costs the tightest thresholds.
    assert results.results["segm"]["AP75"] == pytest.approx(1)
    assert json.loads((tmp_path / "bbox.json").read_text()) == coco_results["bbox"]
    assert json.loads((tmp_path / "segm.json").read_text()) == coco_results["segm"]
    assert torch.load(tmp_path / "coco_results.pth", weights_only=True) == results.results


def test_result_files_use_the_data_sets_ids_and_pixels(dataset: FakeDataset) -> None:
    results = write_results(
        dataset, [dataset.prediction(index) for index in range(3)], None, iou_types=("bbox", "segm")
    )
    expected = [(11, 7, [5, 6, 20, 10]), (11, 3, [30, 10, 12, 25]), (12, 3, [0, 0, 60, 40])]
    for detection, (image_id, category_id, box) in zip(results["bbox"], expected, strict=True):
        assert set(detection) == {"image_id", "category_id", "bbox", "score"}
        assert (detection["image_id"], detection["category_id"]) == (image_id, category_id)
        # Legacy resize scales x1 and x2 alike, and the width counts both border pixels.
        np.testing.assert_allclose(detection["bbox"], box, atol=0.51)
    for detection, (image_id, category_id, box) in zip(results["segm"], expected, strict=True):
        assert (detection["image_id"], detection["category_id"]) == (image_id, category_id)
        assert isinstance(detection["segmentation"]["counts"], str)
        assert detection["segmentation"]["size"] == [HEIGHT, WIDTH]
        left, top, w, h = mask_utils.toBbox(detection["segmentation"])
        np.testing.assert_allclose([left, top, left + w, top + h], _corners(box), atol=1)


def _corners(box: list[int]) -> list[int]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def test_standard_lines_are_printed_boxes_first(dataset: FakeDataset, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(
        dataset,
        [dataset.prediction(0), dataset.prediction(1)[[]], dataset.prediction(2)],
        None,
        iou_types=("bbox", "segm"),
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 24
    head = "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = "
    assert [line.strip().startswith(head) for line in lines].count(True) == 2
    assert head in lines[0]
    assert head in lines[12]


@pytest.mark.parametrize("iou_types", [("bbox",), ("bbox", "segm")])
def test_no_detections_at_all(dataset: FakeDataset, tmp_path: Path, iou_types: tuple[str, ...]) -> None:
    predictions = [dataset.prediction(index)[[]] for index in range(3)]
    results, coco_results = evaluate(dataset, predictions, tmp_path, iou_types=iou_types)
    for iou_type in iou_types:
        assert coco_results[iou_type] == []
        assert results.results[iou_type]["AP"] == 0
        assert (tmp_path / f"{iou_type}.json").read_text() == "[]"


def test_partial_predictions_are_scored_on_their_images(dataset: FakeDataset, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="maskrcnn_benchmark.inference"):
        results, _ = evaluate(dataset, {0: dataset.prediction(0)}, None)
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    assert "1 of 3" in caplog.text


def test_detections_of_unknown_images_are_refused(dataset: FakeDataset) -> None:
    detection = {"image_id": 99, "category_id": 7, "bbox": [0, 0, 5, 5], "score": 1.0}
    with pytest.raises(ValueError, match="99"):
        evaluate_detections(dataset.coco, [detection], "bbox")


def test_box_proposals(dataset: FakeDataset, tmp_path: Path) -> None:
    predictions = [dataset.prediction(index) for index in range(3)]
    results, _ = evaluate(dataset, predictions, tmp_path, box_only=True)
    figures = results.results["box_proposal"]
    assert figures["AR@100"] == pytest.approx(1)
    assert figures["ARs@100"] == pytest.approx(1)
    assert figures["ARl@1000"] == -1
    assert torch.load(tmp_path / "box_proposals.pth", weights_only=True) == results.results
    assert not (tmp_path / "bbox.json").exists()


def test_expected_results(caplog: pytest.LogCaptureFixture) -> None:
    results = CocoResults("bbox")
    results.results["bbox"]["AP"] = 0.40
    with caplog.at_level("INFO", logger="maskrcnn_benchmark.inference"):
        assert check_expected_results(results, [("bbox", "AP", (0.39, 0.01))], 4)
        assert not check_expected_results(results, [("bbox", "AP", (0.39, 0.001))], 4)
    assert [record.message[:4] for record in caplog.records] == ["PASS", "FAIL"]
    with pytest.raises(KeyError, match="segm/AP"):
        check_expected_results(results, [("segm", "AP", (0.3, 0.1))], 4)


def test_predictions_survive_the_file(dataset: FakeDataset, tmp_path: Path) -> None:
    save_predictions(tmp_path / "predictions.pth", [dataset.prediction(index) for index in range(3)])
    loaded = load_predictions(tmp_path / "predictions.pth")
    assert sorted(loaded) == [0, 1, 2]
    original = dataset.prediction(0)
    assert loaded[0].size == original.size
    torch.testing.assert_close(loaded[0].bbox, original.bbox)
    for field in ("scores", "labels", "mask"):
        torch.testing.assert_close(loaded[0].get_field(field), original.get_field(field))


def test_unknown_iou_type(dataset: FakeDataset) -> None:
    with pytest.raises(KeyError, match="bbox"):
        write_results(dataset, [], None, iou_types=("mask",))
    with pytest.raises(KeyError, match="box_proposal"):
        CocoResults("mask")
