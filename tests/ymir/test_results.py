"""result.yaml, infer-result.json and result.tsv."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from maskrcnn_benchmark.apps.categories import Category
from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.ymir import figures
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.predictions import (
    Detected,
    DetectedImage,
    detected_image,
    write_detection,
    write_mining,
    write_segmentation,
)
from maskrcnn_benchmark.ymir.results import MOST_STAGES, ResultForm, Stage, TrainingResult, check_patterns


class Models:
    """A folder /out/models, and the result of a training in it."""

    def __init__(self, folder, **values):
        self.folder = folder / "models"
        self.state = str(folder / "stages.yaml")
        self.form = ResultForm(**{
            "path": str(self.folder / "result.yaml"), "models_dir": str(self.folder), "has_stages": True,
            "metric": "maskAP", "keep": 1, "evaluate_config": {"iou_thr": 0.5, "conf_thr": 0.05}, **values,
        })  # fmt: skip
        self.result = TrainingResult(self.form, self.state, anew=True)

    def add(self, *values):
        for value in values:
            self.count = getattr(self, "count", 0) + 1
            name, weights = f"iter_{self.count:07d}", f"model_{self.count:07d}.pth"
            folder = self.form.folder_of(name)
            folder.mkdir(parents=True, exist_ok=True)
            for file in (weights, "config.yaml"):
                (folder / file).touch()
            shown = {self.form.metric: value, "boxAP": value / 2, "tp": 3, "fp": 1, "fn": 2}
            self.result.add(Stage(name, (weights, "config.yaml"), shown, {"a": value}))

    def content(self):
        return yaml.safe_load((self.folder / "result.yaml").read_text())

    def stages(self):
        return [int(name[-2:]) for name in self.content()["model_stages"]]

    def folders(self):
        return sorted(int(path.name[-2:]) for path in self.folder.iterdir() if path.is_dir())


def test_stages_of_the_second_generation(tmp_path):
    models = Models(tmp_path)
    models.add(0.2, 0.3, 0.1)
    content = models.content()
    assert (content["best_stage_name"], content["maskAP"]) == ("iter_0000002", 0.3)
    assert models.stages() == [2, 3] == models.folders()  # the best one and the newest one
    stage = content["model_stages"]["iter_0000002"]
    assert stage["files"] == ["model_0000002.pth", "config.yaml"]
    assert (stage["stage_name"], stage["maskAP"], stage["boxAP"]) == ("iter_0000002", 0.3, 0.15)
    assert (stage["tp"], stage["fp"], stage["fn"]) == (3, 1, 2)
    assert type(stage["timestamp"]) is int
    assert content["evaluate_config"] == {"iou_thr": 0.5, "conf_thr": 0.05}
    assert "attachments" not in content


def test_of_equal_stages_the_newer_one_is_best(tmp_path):
    models = Models(tmp_path)
    models.add(0.2, 0.2)
    assert models.content()["best_stage_name"] == "iter_0000002"
    assert models.folders() == [2]


def test_so_many_of_the_best_and_of_the_newest_stay(tmp_path):
    models = Models(tmp_path, keep=2)
    models.add(0.5, 0.1, 0.4, 0.3, 0.2, 0.1)
    assert models.stages() == [1, 3, 5, 6] == models.folders()


def test_no_more_stages_than_the_platform_takes(tmp_path):
    models = Models(tmp_path, keep=-1)
    models.add(0.1, 0.9, *[0.2] * 12)
    assert len(models.stages()) == MOST_STAGES
    assert models.stages() == [2, *range(5, 15)] == models.folders()  # the best one is not dropped


def test_a_run_that_goes_on_keeps_its_stages(tmp_path):
    models = Models(tmp_path)
    models.add(0.3, 0.2)
    again = TrainingResult(models.form, models.state, anew=False)
    assert again.stages == models.result.stages
    assert again.best.stage_name == "iter_0000001"
    TrainingResult(models.form, models.state, anew=True)
    assert models.folders() == []
    assert not (models.folder / "result.yaml").exists()


def test_the_first_generation_has_one_model(tmp_path):
    models = Models(tmp_path, has_stages=False, metric="mAP")
    models.add(0.2, 0.3, 0.1)
    assert models.content() == {"model": ["model_0000002.pth", "config.yaml"], "map": 0.3, "class_aps": {"a": 0.3}}
    assert {path.name for path in models.folder.iterdir()} == {
        "result.yaml", "config.yaml", "model_0000002.pth", "model_0000003.pth",
    }  # fmt: skip


def test_files_are_chosen_by_patterns(tmp_path):
    models = Models(tmp_path, patterns=check_patterns([r"\.pth$", "nothing"]))
    models.add(0.2)
    models.result.add_file("iter_0000001", "model_0000001.onnx")
    assert models.content()["model_stages"]["iter_0000001"]["files"] == ["model_0000001.pth"]
    assert models.result.stages[0].files == ("model_0000001.pth", "config.yaml", "model_0000001.onnx")
    with pytest.raises(JobError, match="regular expression") as caught:
        check_patterns(["("])
    assert caught.value.code == ReturnCode.CONFIG


RESULTS = {"bbox": {"AP": 0.2, "AP50": 0.4, "AR100": 0.3}, "segm": {"AP": -1.0, "AP50": 0.3, "AR100": 0.2}}


def test_figures_of_both_object_types():
    assert figures.platform_figures(RESULTS, has_masks=False) == {"mAP": 0.4, "mAR": 0.3}
    # COCO's -1, where there is no object, is no figure of the platform's.
    assert figures.platform_figures(RESULTS, has_masks=True) == {"maskAP": 0.0, "boxAP": 0.2}


def test_right_wrong_and_missed():
    objects = [
        (1, 1, [0, 0, 10, 10], 0),
        (1, 1, [20, 20, 10, 10], 0),
        (2, 2, [5, 5, 10, 10], 0),
        (2, 1, [30, 30, 9, 9], 1),
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": 50, "width": 50}, {"id": 2, "height": 50, "width": 50}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 100, "iscrowd": crowd}
            for number, (image, category, box, crowd) in enumerate(objects, start=1)
        ],
    }
    coco.createIndex()
    found = [
        (1, 1, [1, 0, 10, 10], 0.9),  # right
        (1, 1, [0, 0, 10, 10], 0.8),  # that object is taken
        (1, 2, [20, 20, 10, 10], 0.7),  # of another class
        (2, 2, [5, 5, 10, 10], 0.04),  # not sure enough
        (2, 1, [30, 30, 9, 9], 0.6),  # a group counts neither way
    ]
    names = ("image_id", "category_id", "bbox", "score")
    detections = [dict(zip(names, entry, strict=True)) for entry in found]
    assert figures.count_outcomes(coco, Detections.from_list(detections, "bbox")) == {"tp": 1, "fp": 2, "fn": 2}
    assert figures.count_outcomes(coco, Detections.from_list([], "bbox")) == {"tp": 0, "fp": 0, "fn": 3}


def test_the_curve_is_where_the_figures_are():
    recall = np.linspace(0, 1, 101).tolist()
    report = {
        "classes": [{"id": 1, "name": "a", "AP": 0.5, "AP50": 0.7}, {"id": 2, "name": "b", "AP": -1.0, "AP50": -1.0}],
        "precision_recall": {"recall": recall, "mean": {"0.50": [0.5] * 101}, "classes": {"1": {"0.50": [1.0] * 101}}},
    }
    picture = figures.draw_curves(report)
    column = picture[:, (60 + 500) // 2]  # at recall 0.5
    dark = np.flatnonzero((column < 60).all(axis=1))
    assert abs(dark - (30 + 430) / 2).min() <= 1, "the mean lies at precision 0.5"
    assert figures.class_figures(report, has_masks=True) == {"a": 0.5, "b": 0.0}
    assert figures.class_figures(report, has_masks=False) == {"a": 0.7, "b": 0.0}
    assert figures.draw_curves({"classes": [], "precision_recall": {"recall": recall, "mean": {}, "classes": {}}}).any()


class Names:
    """As much of a Predictor as is asked here."""

    categories = [Category(1, "forklift"), Category(2, "pallet")]

    def name_of(self, label):
        return self.categories[label - 1].name


def found(boxes, masks=None, size=(12, 10)):
    boxlist = BoxList(torch.tensor(boxes).float().reshape(-1, 4), size, mode="xyxy")
    boxlist.add_field("scores", torch.linspace(0.9, 0.8, len(boxes)))
    boxlist.add_field("labels", torch.tensor([1 + index % 2 for index in range(len(boxes))]))
    if masks is not None:
        boxlist.add_field("mask", torch.from_numpy(masks)[:, None])
    return boxlist


def test_boxes_are_whole_pixels_within_the_image():
    seen = detected_image("/x/a.jpg", found([[2.4, 1.6, 7.6, 4.4], [-3, -3, 40, 40], [5, 5, 4.8, 4.9]]), Names(),
                          with_masks=False)  # fmt: skip
    assert [item.box for item in seen.objects] == [(2, 2, 7, 3), (0, 0, 12, 10), (5, 5, 1, 1)]
    assert all(type(value) is int for item in seen.objects for value in item.box)
    assert [item.class_name for item in seen.objects] == ["forklift", "pallet", "forklift"]
    (item,) = seen.only(["Pallet"]).objects
    assert (item.class_name, item.box) == ("Pallet", seen.objects[1].box)


def test_masks_are_the_platforms_own_example():
    masks = np.zeros((2, 10, 12), dtype=bool)
    masks[0, 2:6, 3:9] = True  # the second one has nothing left
    seen = detected_image("/x/a.jpg", found([[3, 2, 8, 5], [0, 0, 2, 2]], masks), Names(), with_masks=True)
    (item,) = seen.objects
    assert item.mask == {"size": [10, 12], "counts": "P146000000000l0"}
    without = detected_image("/x/a.jpg", found([[3, 2, 8, 5]]), Names(), with_masks=True)
    assert without.objects[0].mask == item.mask, "a network without masks gives its box"


def test_the_file_of_boxes(tmp_path):
    path = tmp_path / "out" / "infer-result.json"
    images = [
        DetectedImage("/in/a7/a.jpg", (10, 12), (Detected("pallet", 0.83, (12, 7, 31, 18)),)),
        DetectedImage("/in/b8/b", (10, 12), ()),
    ]
    for key in ("boxes", "annotations"):
        write_detection(str(path), images, key=key)
        assert json.loads(path.read_text()) == {
            "detection": {
                "a.jpg": {key: [{"class_name": "pallet", "score": 0.83, "box": {"x": 12, "y": 7, "w": 31, "h": 18}}]},
                "b": {key: []},
            }
        }


def test_the_file_of_masks(tmp_path):
    path = tmp_path / "infer-result.json"
    rle = {"size": [10, 12], "counts": "P146000000000l0"}
    images = [
        DetectedImage("/in/b", (10, 12), ()),
        DetectedImage("/in/a.jpg", (10, 12), (Detected("pallet", 0.91, (3, 2, 6, 4), rle),)),
    ]
    write_segmentation(str(path), images, ["forklift", "pallet"])
    content = json.loads(path.read_text())
    assert [image["file_name"] for image in content["images"]] == ["b", "a.jpg"]
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "forklift"), (2, "pallet")]
    assert content["annotations"] == [
        {"id": 1, "image_id": 2, "category_id": 2, "iscrowd": 0, "bbox": [3.0, 2.0, 6.0, 4.0], "area": 24,
         "segmentation": rle, "confidence": 0.91}
    ]  # fmt: skip
    assert mask_utils.decode(rle).sum() == 24


def test_the_file_of_scores(tmp_path):
    path = tmp_path / "result.tsv"
    write_mining(str(path), [("/in/a", -10.0), ("/in/b", 3.271), ("/in/c", 3.271), ("/in/d", 7)])
    assert path.read_text() == "/in/d\t7.0\n/in/b\t3.271\n/in/c\t3.271\n/in/a\t-10.0\n"
    with pytest.raises(JobError, match="/in/a is nan"):
        write_mining(str(path), [("/in/a", float("nan"))])
