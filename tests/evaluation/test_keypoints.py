"""Keypoint evaluation: COCO's own program on the same files, similarity by hand, other data than COCO's, files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.evaluation import (
    CocoResults,
    check_expected_results,
    evaluate,
    evaluate_detections,
    load_predictions,
    prepare_for_coco_keypoint,
    save_predictions,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import cat_boxlist
from maskrcnn_benchmark.structures.keypoint import keypoints_of
from tests.data.tiny_keypoints import keypoint_annotations, write_tiny_keypoints

FIVE = tuple("abcde")


def make_dataset(folder: Path, data: dict | None = None) -> COCODataset:
    tiny = write_tiny_keypoints(folder / "data", data)
    return COCODataset(tiny.ann_file, tiny.root, False)


def predictions_of(dataset: COCODataset, *, scale: float = 1.0, noise: float = 0.0) -> dict[int, BoxList]:
    """The ground truth as predictions in images scaled by ``scale``, its keypoints ``noise`` pixels off."""
    rng = np.random.RandomState(0)
    predictions = {}
    for index in range(len(dataset)):
        targets = dataset.load_targets(index)
        height, width = targets.image_size
        boxlist = BoxList(targets.boxes, (width, height))
        boxlist.add_field("labels", torch.from_numpy(targets.labels))
        boxlist.add_field("scores", torch.linspace(0.9, 0.5, max(len(targets), 1))[: len(targets)])
        points = targets.keypoints.points.copy()
        points[..., :2] += noise * rng.randn(*points[..., :2].shape)
        points[..., 2] = 1
        keypoints = keypoints_of(torch.from_numpy(points), (width, height))
        keypoints.add_field("logits", torch.ones(points.shape[:2]))
        boxlist.add_field("keypoints", keypoints)
        predictions[index] = boxlist.resize((round(width * scale), round(height * scale)))
    return predictions


def figures(dataset: COCODataset, predictions: dict[int, BoxList], **keywords) -> dict[str, float]:
    results, _ = evaluate(dataset, predictions, None, iou_types=("keypoints",), **keywords)
    return results.results["keypoints"]


def figures_of_pycocotools(dataset: COCODataset, result_file: Path) -> list[float]:
    """COCO's ten figures of a result file, without anything of this package."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(dataset.ann_file))
        reference = COCOeval(truth, truth.loadRes(str(result_file)), "keypoints")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    return reference.stats.tolist()


@pytest.mark.parametrize("noise", [0.0, 1.0, 2.5])
def test_the_same_as_pycocotools_alone(tmp_path: Path, noise: float) -> None:
    data = {"info": {}, **keypoint_annotations()}
    dataset = make_dataset(tmp_path, data)
    predictions = predictions_of(dataset, scale=2.0, noise=noise)
    results, files = evaluate(dataset, predictions, tmp_path / "out", iou_types=("bbox", "keypoints"))
    written = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    assert written == files["keypoints"]
    reference = figures_of_pycocotools(dataset, tmp_path / "out" / "keypoints.json")
    assert list(results.results["keypoints"].values()) == reference
    assert list(results.results["keypoints"]) == [
        "AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl",
    ]  # fmt: skip
    assert (results.results["keypoints"]["AP"] == 1) == (noise == 0)
    assert results.results["bbox"]["AP"] == 1
    assert torch.load(tmp_path / "out" / "coco_results.pth", weights_only=True) == results.results


@pytest.mark.parametrize("stretch", [0.1, 1.0])
def test_the_area_of_a_wrong_detection_is_that_of_its_points(tmp_path: Path, stretch: float) -> None:
    dataset = make_dataset(tmp_path, {"info": {}, **keypoint_annotations()})
    predictions = predictions_of(dataset)
    wrong = predictions_of(dataset)[0][:1]
    wrong.add_field("scores", torch.tensor([0.99]))
    wrong.get_field("keypoints").keypoints[..., :2] *= stretch
    wrong.get_field("keypoints").keypoints[..., :2] += 300
    predictions[0] = cat_boxlist([wrong, predictions[0]])
    results, _ = evaluate(dataset, predictions, tmp_path / "out", iou_types=("keypoints",))
    assert list(results.results["keypoints"].values()) == figures_of_pycocotools(
        dataset, tmp_path / "out" / "keypoints.json"
    )
    assert results.results["keypoints"]["AP"] < 1
    # a small one is no medium one
    assert (results.results["keypoints"]["APm"] > 0.99) == (stretch < 1)


def test_results_are_in_the_data_sets_pixels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    found = prepare_for_coco_keypoint(predictions_of(dataset, scale=1.5), dataset)
    assert {detection["image_id"] for detection in found} == {10, 30, 40}  # 20 has no object
    truth = {a["image_id"]: a for a in dataset.coco.dataset["annotations"] if a["num_keypoints"] == 3}
    (detection,) = (detection for detection in found if detection["image_id"] == 30)
    assert detection["category_id"] == 1
    expected = np.reshape(truth[30]["keypoints"], (17, 3))[:3, :2]
    np.testing.assert_allclose(np.reshape(detection["keypoints"], (17, 3))[:3, :2], expected, atol=1e-4)
    assert detection["keypoints"][2::3] == [1] * 17


@pytest.mark.parametrize("offset", [0.5, 2.0, 3.0, 4.0, 6.0, 20.0])
def test_similarity_by_hand(tmp_path: Path, offset: float) -> None:
    """One object, one detection: AP is the share of thresholds below the mean of exp(-d^2 / (2 area (2 sigma)^2))."""
    sigmas = (0.05, 0.1, 0.02, 0.08, 0.06)
    data = keypoint_annotations(5, FIVE)
    data["annotations"] = [data["annotations"][0]]
    data["images"] = [image for image in data["images"] if image["id"] == 40]
    dataset = make_dataset(tmp_path, data)
    predictions = predictions_of(dataset)
    predictions[0].get_field("keypoints").keypoints[..., 0] += offset
    area = data["annotations"][0]["area"]
    similarity = np.mean([np.exp(-(offset**2) / (2 * area * (2 * sigma) ** 2)) for sigma in sigmas])
    thresholds = 0.5 + 0.05 * np.arange(10)
    found = figures(dataset, predictions, oks_sigmas=sigmas)
    assert found["AP"] == pytest.approx((similarity >= thresholds).mean())
    assert found["AR50"] == float(similarity >= 0.5)


def test_other_keypoints_need_sigmas(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, keypoint_annotations(5, FIVE))
    for sigmas, number in (((), 17), ((0.1, 0.1), 2)):
        with pytest.raises(ValueError, match=f"5 keypoints, but TEST.KEYPOINT_OKS_SIGMAS has {number} numbers"):
            figures(dataset, predictions_of(dataset), oks_sigmas=sigmas)
    assert figures(dataset, predictions_of(dataset), oks_sigmas=[0.1] * 5)["AP"] == 1


def test_annotations_that_lack_keys(tmp_path: Path) -> None:
    complete = make_dataset(tmp_path / "a")
    predictions = predictions_of(complete, noise=2.0)
    data = keypoint_annotations()
    for item in data["annotations"]:
        del item["num_keypoints"]
        item["keypoints"][2::3] = [min(visibility, 1) for visibility in item["keypoints"][2::3]]  # hidden ones count
    del data["annotations"][1]["keypoints"]
    lacking = make_dataset(tmp_path / "b", data)
    assert figures(lacking, predictions) == figures(complete, predictions)
    assert "num_keypoints" not in lacking.coco.dataset["annotations"][0]  # the data set's own view stays


def test_no_detections_and_no_ground_truth(tmp_path: Path, caplog) -> None:
    dataset = make_dataset(tmp_path / "a")
    nothing = {index: prediction[:0] for index, prediction in predictions_of(dataset).items()}
    assert figures(dataset, nothing)["AP"] == 0
    data = keypoint_annotations()
    for item in data["annotations"]:
        del item["keypoints"], item["num_keypoints"]
    without = make_dataset(tmp_path / "b", data)
    assert set(figures(without, nothing).values()) == {-1}
    assert "The ground truth has no keypoints" in caplog.text


def test_detections_of_unknown_images_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    detection = {"image_id": 99, "category_id": 1, "keypoints": [1] * 51, "score": 0.5}
    with pytest.raises(ValueError, match="99"):
        evaluate_detections(dataset.coco, [detection], "keypoints")


def test_expected_results() -> None:
    results = CocoResults("bbox", "keypoints")
    results.results["keypoints"]["AP"] = 0.641
    assert check_expected_results(results, [("keypoints", "AP", (0.642, 0.001))])
    assert not check_expected_results(results, [("keypoints", "AP", (0.7, 0.001))])
    assert "Task: keypoints\nAP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl\n0.6410, " in repr(results)


def test_predictions_survive_the_file(tmp_path: Path) -> None:
    predictions = predictions_of(make_dataset(tmp_path), noise=1.0)
    save_predictions(tmp_path / "predictions.pth", predictions)
    for index, loaded in load_predictions(tmp_path / "predictions.pth").items():
        before, after = predictions[index].get_field("keypoints"), loaded.get_field("keypoints")
        assert type(after) is type(before)
        assert after.size == before.size
        assert torch.equal(after.keypoints, before.keypoints)
        assert torch.equal(after.get_field("logits"), before.get_field("logits"))
