"""Kinds of mistakes, what they cost, and the confusion of classes: by hand, and against tidecv."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn_benchmark.evaluation import errors as module
from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.evaluation.errors import KINDS, ImagePairs, confusion, find_errors, weigh_errors
from maskrcnn_benchmark.evaluation.fast_coco import FastCocoEval
from tests.evaluation.random_coco import random_coco

BOXES = {1: [10, 10, 40, 40], 2: [100, 10, 40, 40], 3: [200, 10, 40, 40]}


def evaluate(coco, results, iou_type="bbox"):
    evaluation = FastCocoEval(coco, Detections.from_list(results, iou_type))
    evaluation.evaluate()
    evaluation.accumulate()
    matching = evaluation.matching
    return evaluation, matching, ImagePairs.make(matching, evaluation.detections)


def make_coco(objects, categories=(1, 2)):
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "height": 100, "width": 300} for i in (1, 2)],
        "categories": [{"id": i, "name": str(i)} for i in categories],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (c, box, crowd) in enumerate(objects, start=1)
        ],
    }
    coco.createIndex()
    return coco


@pytest.fixture
def scene():
    """Objects 1 and 3 of class 1, object 2 of class 2, and one detection of each kind, by descending score."""
    coco = make_coco([(1, BOXES[1], 0), (2, BOXES[2], 0), (1, BOXES[3], 0)])
    detections = [  # (category, box)
        (1, BOXES[1]),  # right
        (1, [11, 10, 40, 40]),  # again: duplicate
        (1, BOXES[2]),  # wrong class
        (1, [220, 10, 40, 40]),  # IoU 1/3: badly placed
        (2, [30, 10, 40, 40]),  # wrong class, and IoU 1/3 only: both
        (1, [100, 70, 10, 10]),  # on nothing
    ]
    results = [
        {"image_id": 1, "category_id": c, "bbox": box, "score": 0.9 - 0.1 * n} for n, (c, box) in enumerate(detections)
    ]
    results.append({"image_id": 2, "category_id": 2, "bbox": BOXES[1], "score": 0.1})  # in an image without objects
    return coco, results


def test_kinds_by_hand(scene):
    coco, results = scene
    _, matching, pairs = evaluate(coco, results)
    found = find_errors(matching, pairs)
    by_row = dict(zip(matching.rows.tolist(), found.kinds.tolist(), strict=True))
    names = ["right", "Dupe", "Cls", "Loc", "Both", "Bkg", "Bkg"]
    assert [KINDS[by_row[n]] if by_row[n] >= 0 else "right" for n in range(7)] == names
    # Objects 2 and 3 were missed, but the wrong class and the bad place would each find one of them.
    assert found.is_missed.tolist() == [False, False, False]
    assert found.winners.sum() == 2


def test_what_is_lost_by_hand():
    # One object of class 1, found as class 2, which has an object of its own that is found.
    coco = make_coco([(1, BOXES[1], 0), (2, BOXES[2], 0)])
    results = [{"image_id": 1, "category_id": 2, "bbox": BOXES[n], "score": 0.9 - 0.1 * n} for n in (1, 2)]
    evaluation, matching, pairs = evaluate(coco, results)
    lost = weigh_errors(matching, find_errors(matching, pairs))
    assert lost["AP50"] == pytest.approx(0.25)  # class 1: 0, class 2: precision 1/2 at every recall
    assert evaluation.eval["precision"][0, :, :, 0, -1].mean() == pytest.approx(0.25)
    assert lost["Cls"] == pytest.approx(0.75)
    assert [lost[kind] for kind in ("Loc", "Both", "Dupe", "Bkg", "Miss")] == [0] * 5
    assert lost["FalsePos"] == pytest.approx(0.25)
    assert lost["FalseNeg"] == pytest.approx(0.25)  # class 1 would have no objects, and leave the mean


def test_a_missed_object_costs_its_recall():
    coco = make_coco([(1, BOXES[1], 0), (1, BOXES[2], 0)], categories=(1,))
    results = [{"image_id": 1, "category_id": 1, "bbox": BOXES[1], "score": 0.9}]
    _, matching, pairs = evaluate(coco, results)
    lost = weigh_errors(matching, find_errors(matching, pairs))
    assert lost["AP50"] == pytest.approx(51 / 101)
    assert lost["Miss"] == pytest.approx(50 / 101)


def test_confusion_by_hand(scene):
    coco, results = scene
    _, matching, pairs = evaluate(coco, results)
    # Rows: objects of class 1, of class 2, none; columns: seen as class 1, as class 2, not at all.
    assert confusion(matching, pairs, score_threshold=0.0).tolist() == [[1, 0, 1], [1, 0, 0], [3, 2, 0]]
    assert confusion(matching, pairs, score_threshold=0.85).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_a_crowd_confuses_nobody():
    coco = make_coco([(1, [0, 0, 300, 100], 1)])
    results = [{"image_id": 1, "category_id": c, "bbox": BOXES[1], "score": 0.9} for c in (1, 2)]
    _, matching, pairs = evaluate(coco, results)
    assert confusion(matching, pairs, score_threshold=0.5).sum() == 0
    # Of its own class the detection counts neither way; of another it is a mistake, on nothing that is an object.
    assert sorted(find_errors(matching, pairs).kinds.tolist()) == [-1, KINDS.index("Bkg")]


def test_nothing_at_all():
    for objects, results in (([], []), ([(1, BOXES[1], 0)], [])):
        _, matching, pairs = evaluate(make_coco(objects), results)
        found = find_errors(matching, pairs)
        assert found.is_missed.sum() == len(objects)
        assert weigh_errors(matching, found)["AP50"] == 0
        assert confusion(matching, pairs, score_threshold=0.5).sum() == len(objects)


def test_ap_of_the_mistakes_is_that_of_the_figures():
    for seed in range(6):
        coco, results = random_coco(seed, ties=0.0)
        for iou_type in ("bbox", "segm"):
            evaluation, matching, pairs = evaluate(coco, results[iou_type], iou_type)
            precision = evaluation.eval["precision"][0, :, :, 0, -1]
            lost = weigh_errors(matching, find_errors(matching, pairs))
            assert lost["AP50"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)


@pytest.mark.extras
def test_equals_tidecv(monkeypatch):
    # Its plots need more packages than its figures.
    plots = types.ModuleType("tidecv.plotting")
    plots.Plotter = type("Plotter", (), {"__init__": lambda self, *_, **__: None})
    monkeypatch.setitem(sys.modules, "tidecv.plotting", plots)
    tidecv = pytest.importorskip("tidecv", reason="tidecv is not installed")
    # It reads precision at k / 100, COCO at numbers of which some are a last bit larger.
    monkeypatch.setattr(module, "_RECALLS", np.arange(101) / 100)
    for seed in range(8):
        coco, results = random_coco(seed, num_images=15, crowds=0.0, ties=0.0)
        present = {annotation["category_id"] for annotation in coco.dataset["annotations"]}
        for iou_type, mode in (("bbox", tidecv.TIDE.BOX), ("segm", tidecv.TIDE.MASK)):
            own = [result for result in results[iou_type] if result["category_id"] in present]
            _, matching, pairs = evaluate(coco, own, iou_type)
            found = find_errors(matching, pairs)
            lost = weigh_errors(matching, found)
            truth, seen = tidecv.Data("gt"), tidecv.Data("dt", max_dets=1000)
            for data in (truth, seen):
                for category in present:
                    data.add_class(category, str(category))
                for image in coco.imgs:
                    data.add_image(image, str(image))
            for a in coco.dataset["annotations"]:
                truth.add_ground_truth(a["image_id"], a["category_id"], a["bbox"], coco.annToRLE(a))
            for r in own:
                seen.add_detection(r["image_id"], r["category_id"], r["score"], r.get("bbox"), r.get("segmentation"))
            run = tidecv.TIDE().evaluate(truth, seen, mode=mode)
            counts = {kind.short_name: count for kind, count in run.count_errors().items()}
            kinds = np.bincount(found.kinds[found.kinds >= 0], minlength=5).tolist()
            assert dict(zip(KINDS, [*kinds, int(found.is_missed.sum())], strict=True)) == counts
            for kind, value in {**run.fix_main_errors(), **run.fix_special_errors()}.items():
                assert lost[kind.short_name] == pytest.approx(value / 100, abs=1e-9), (seed, kind)
