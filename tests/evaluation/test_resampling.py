"""Bootstrap and scores of images against the evaluation of what they stand for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn_benchmark.evaluation import resampling
from maskrcnn_benchmark.evaluation.resampling import confidence_intervals, image_scores, resampled_precisions
from tests.evaluation.random_coco import random_coco
from tests.evaluation.test_errors import BOXES, evaluate, make_coco


def copies(coco, results, weights):
    """The data set with each image as often as its weight says."""
    dataset, found = {"categories": coco.dataset["categories"], "images": [], "annotations": []}, []
    for image, weight in zip(sorted(coco.imgs), weights, strict=True):
        for _ in range(weight):
            number = len(dataset["images"]) + 1
            dataset["images"].append({**coco.imgs[image], "id": number})
            for annotation in coco.imgToAnns[image]:
                own = {**copy.deepcopy(annotation), "image_id": number, "id": len(dataset["annotations"]) + 1}
                dataset["annotations"].append(own)
            found += [{**result, "image_id": number} for result in results if result["image_id"] == image]
    repeated = COCO()
    repeated.dataset = dataset
    repeated.createIndex()
    return repeated, found


@pytest.mark.parametrize("most_weights", [1, 10**9])
def test_a_weight_is_so_many_copies_of_the_image(monkeypatch, most_weights):
    monkeypatch.setattr(resampling, "_MOST_WEIGHTS", most_weights)
    random = np.random.RandomState(0)
    for seed in range(4):
        coco, results = random_coco(seed, ties=0.0)
        _, matching, _ = evaluate(coco, results["bbox"])
        weights = random.randint(0, 4, (3, len(coco.imgs))).astype(np.int32)
        found = resampled_precisions(matching, weights)
        for own, row in zip(weights.tolist(), found, strict=True):
            repeated, _, _ = evaluate(*copies(coco, results["bbox"], own))
            precision = repeated.eval["precision"][:, :, :, 0, -1]
            for t, value in enumerate(row):
                defined = precision[t][precision[t] > -1]
                assert value == pytest.approx(defined.mean(), abs=1e-12)


def test_intervals_surround_the_figure_and_repeat():
    coco, results = random_coco(1, num_images=40, ties=0.0)
    evaluation, matching, _ = evaluate(coco, results["bbox"])
    found = confidence_intervals(matching, evaluation.params.iouThrs, 100)
    assert found == confidence_intervals(matching, evaluation.params.iouThrs, 100)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for name, part in (("AP", slice(None)), ("AP50", 0), ("AP75", 5)):
        value, interval = precision[part][precision[part] > -1].mean(), found["figures"][name]
        assert interval["low"] < value < interval["high"]
        # 95 in 100 of a normal distribution lie within two standard deviations.
        assert interval["high"] - interval["low"] == pytest.approx(4 * interval["std"], rel=0.3)
    assert (found["num_resamples"], found["level"]) == (100, 0.95)


def test_no_intervals_without_resamples_or_objects():
    coco, results = random_coco(0, most_objects=0)
    evaluation, matching, _ = evaluate(coco, results["bbox"])
    assert confidence_intervals(matching, evaluation.params.iouThrs, 0) is None
    found = confidence_intervals(matching, evaluation.params.iouThrs, 3)
    assert found["figures"]["AP"] == {"low": -1.0, "high": -1.0, "std": 0.0}


def test_best_and_worst_images_by_hand():
    coco = make_coco([(1, BOXES[1], 0), (1, BOXES[2], 0)])
    coco.dataset["images"] += [{"id": i, "height": 100, "width": 300} for i in (3, 4)]
    coco.dataset["annotations"] += [
        {"id": 3, "image_id": 3, "category_id": 1, "bbox": BOXES[1], "area": 1600, "iscrowd": 0}
    ]
    coco.createIndex()
    results = [
        {"image_id": image, "category_id": 1, "bbox": BOXES[box], "score": score}
        for image, box, score in ((1, 1, 0.9), (1, 3, 0.8), (2, 1, 0.7), (3, 1, 0.6), (3, 2, 0.4))
    ]
    _, matching, _ = evaluate(coco, results)
    found = image_scores(matching, score_threshold=0.5, most=2)
    # Image 1: one of two found, one wrong; 2: only wrong; 3: found, its wrong one is unsure; 4: nothing to score.
    assert found["num_scored"] == 3
    assert found["best"] == [
        {"image_id": 3, "score": 1.0, "num_objects": 1, "right": 1, "wrong": 0, "missed": 0},
        {"image_id": 1, "score": 0.5, "num_objects": 2, "right": 1, "wrong": 1, "missed": 1},
    ]
    assert [entry["image_id"] for entry in found["worst"]] == [2, 1]
    assert found["mean"] == pytest.approx(0.5)
    assert found["histogram"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
