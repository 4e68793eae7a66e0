"""evaluation.json: what it holds, that it agrees with the figures, and that it stays small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation import CocoResults, Detections, EvaluationSettings, evaluate, evaluate_detections
from maskrcnn_benchmark.evaluation import report as module
from maskrcnn_benchmark.evaluation.lists import CocoLists
from maskrcnn_benchmark.evaluation.report import VERSION, coco_report, write_report
from tests.evaluation.random_coco import random_coco
from tests.evaluation.test_coco import FakeDataset

KINDS = ("bbox", "segm")


def make_report(coco, results, folder, *, engine="fast", **options):
    columns = {kind: Detections.from_list(own, kind) for kind, own in results.items()}
    evaluations = {kind: evaluate_detections(coco, own, kind, engine=engine) for kind, own in columns.items()}
    figures = CocoResults(*results)
    for evaluation in evaluations.values():
        figures.update(evaluation)
    settings = EvaluationSettings(iou_types=tuple(results), num_resamples=20, dataset_name="random", **options)
    write_report(folder, coco_report(figures, evaluations, CocoLists(columns), settings, len(coco.imgs)))
    return json.loads((folder / "evaluation.json").read_text()), figures


@pytest.fixture
def case(tmp_path):
    coco, results = random_coco(5, num_images=20)
    report, figures = make_report(coco, results, tmp_path)
    return coco, results, report, figures


def test_layout(case):
    coco, _, report, figures = case
    assert set(report) == {"format", "version", "kind", "dataset", "num_images", "figures", "tasks"}
    assert (report["format"], report["version"]) == ("maskrcnn_benchmark evaluation", VERSION)
    assert (report["kind"], report["dataset"], report["num_images"]) == ("coco", "random", 20)
    assert report["figures"] == figures.results
    for task in report["tasks"].values():
        assert set(task) == {"classes", "sizes", "precision_recall", "errors", "confusion", "confidence", "images"}
    assert [entry["id"] for entry in report["tasks"]["bbox"]["classes"]] == sorted(coco.cats)


def test_means_of_the_classes_are_the_figures(case):
    _, _, report, figures = case
    for kind in KINDS:
        for name, whole in figures.results[kind].items():
            own = [entry[name] for entry in report["tasks"][kind]["classes"] if entry[name] >= 0]
            assert (np.mean(own) if own else -1) == pytest.approx(whole, abs=1e-12)
        sizes = {entry["name"]: entry for entry in report["tasks"][kind]["sizes"]}
        for name, letter in (("all", ""), ("small", "s"), ("medium", "m"), ("large", "l")):
            assert sizes[name]["AP"] == figures.results[kind][f"AP{letter}"]
            assert sizes[name]["AR"] == figures.results[kind]["AR100" if name == "all" else f"AR{letter}"]


def test_numbers_of_objects_and_detections(case):
    coco, results, report, _ = case
    to_find = [annotation for annotation in coco.dataset["annotations"] if not annotation["iscrowd"]]
    for kind in KINDS:
        for entry in report["tasks"][kind]["classes"]:
            assert entry["num_objects"] == sum(a["category_id"] == entry["id"] for a in to_find)
            assert entry["num_detections"] == sum(r["category_id"] == entry["id"] for r in results[kind])
        sizes = {entry["name"]: entry["num_objects"] for entry in report["tasks"][kind]["sizes"]}
        assert sizes["small"] == sum(annotation["area"] <= 32**2 for annotation in to_find)
        assert sizes["all"] == len(to_find)


def test_curves(case):
    coco, results, report, figures = case
    evaluation = evaluate_detections(coco, results["segm"], "segm")
    curves = report["tasks"]["segm"]["precision_recall"]
    assert curves["recall"] == [round(n / 100, 2) for n in range(101)]
    assert list(curves["mean"]) == [f"{n / 100:.2f}" for n in range(50, 100, 5)]
    assert np.mean([*curves["mean"].values()]) == pytest.approx(figures.results["segm"]["AP"], abs=1e-4)
    for k, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, k, 0, -1]
        assert (str(category) in curves["classes"]) == (precision[0, 0] > -1)
        if str(category) in curves["classes"]:
            np.testing.assert_allclose([*curves["classes"][str(category)].values()], precision, atol=5e-5)


def test_the_reference_engine_gives_the_same_report(case, tmp_path):
    coco, results, report, _ = case
    found, _ = make_report(coco, results, tmp_path, engine="pycocotools", coco_engine="pycocotools")
    assert found == report


def test_many_classes_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_CONFUSIONS", 50)
    coco, results = random_coco(9, num_images=30, num_categories=19)
    coco.dataset["categories"] += [{"id": 1000 + n, "name": f"further {n}"} for n in range(200)]
    coco.createIndex()
    report, _ = make_report(coco, results, tmp_path)
    task = report["tasks"]["bbox"]
    assert list(task["precision_recall"]["mean"]) == ["0.50", "0.75", "0.95"]
    assert len(task["confusion"]["entries"]) == 50 < task["confusion"]["num_entries"]
    counts = [count for _, _, count in task["confusion"]["entries"]]
    assert counts == sorted(counts, reverse=True)
    assert (tmp_path / "evaluation.json").stat().st_size < 400_000


def test_the_log_has_a_line_a_class(case, tmp_path, monkeypatch):
    coco, results, _, _ = case
    lines = []
    monkeypatch.setattr(module.logger, "info", lambda text, *args: lines.extend((text % args).splitlines()))
    monkeypatch.setattr(module, "_MOST_TABLE_ROWS", 3)
    report, _ = make_report(coco, results, tmp_path)
    assert lines[0].split() == ["bbox", "by", "class", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"]
    first = report["tasks"]["bbox"]["classes"][0]
    assert lines[1].split()[:4] == ["class", str(first["id"]), f"{first['AP']:.4f}", f"{first['AP50']:.4f}"]
    assert lines[4] == "and 1 more in evaluation.json"


def test_proposals_have_one_too(tmp_path):
    dataset = FakeDataset()
    results, _ = evaluate(dataset, [dataset.prediction(n) for n in range(3)], tmp_path, box_only=True)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["figures"] == results.results
    assert report["tasks"] == {}


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="one of fast, pycocotools, got 'quick'"):
        EvaluationSettings(coco_engine="quick")
    with pytest.raises(ValueError, match="0 or more, got -1"):
        EvaluationSettings(num_resamples=-1)
    with pytest.raises(TypeError, match="sigmas"):
        evaluate(FakeDataset(), [], None, sigmas=3)
