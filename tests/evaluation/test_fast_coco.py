"""The fast engine against pycocotools: every figure, every point of every curve, to the bit."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets.json_stream import UnsplittableError, read_items
from maskrcnn_benchmark.evaluation.columns import Detections
from maskrcnn_benchmark.evaluation.fast_coco import FastCocoEval
from maskrcnn_benchmark.evaluation.ground_truth import read_coco
from tests.evaluation.random_coco import random_coco, reference


def fast(coco, results, iou_type, image_ids=None):
    evaluation = FastCocoEval(coco, Detections.from_list(results, iou_type))
    if image_ids is not None:
        evaluation.params.imgIds = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def assert_equal(found, expected):
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(found.eval[name], expected.eval[name]), name
    assert found.stats.tolist() == expected.stats.tolist()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(12))
def test_all_curves_equal_pycocotools(seed, iou_type, capsys):
    coco, results = random_coco(seed)
    expected = reference(coco, results[iou_type], iou_type)
    assert_equal(fast(coco, results[iou_type], iou_type), expected)
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"ties": 1.0},  # equal scores everywhere
        {"crowds": 0.9},
        {"num_images": 2, "most_detections": 400, "num_categories": 2},  # more than maxDets an image and category
        {"most_objects": 0},  # nothing to find
        {"most_detections": 0},  # nothing found
        {"num_categories": 1},
    ],
    ids=str,
)
def test_corners(options):
    for seed in (100, 101):
        coco, results = random_coco(seed, **options)
        for iou_type in ("bbox", "segm"):
            expected = reference(coco, results[iou_type], iou_type)
            assert_equal(fast(coco, results[iou_type], iou_type), expected)


def test_some_of_the_images():
    coco, results = random_coco(7)
    chosen = sorted(coco.imgs)[1:5]
    assert_equal(fast(coco, results["segm"], "segm", chosen), reference(coco, results["segm"], "segm", chosen))


def test_quirks_of_annotation_ids():
    # The id 0 is no match for pycocotools; of two annotations with one id the last stands for both.
    for seed in range(5):
        coco, results = random_coco(seed)
        coco.dataset["annotations"][0]["id"] = 0
        coco.dataset["annotations"][4]["id"] = coco.dataset["annotations"][2]["id"]
        coco.createIndex()
        assert_equal(fast(coco, results["bbox"], "bbox"), reference(coco, results["bbox"], "bbox"))


def test_masks_of_another_size_do_not_match(caplog):
    coco, results = random_coco(3)
    for result in results["segm"]:
        result["segmentation"] = {"size": [50, 252], "counts": result["segmentation"]["counts"]}
    with caplog.at_level("WARNING", logger="maskrcnn_benchmark.inference"):
        found = fast(coco, results["segm"], "segm")
    assert_equal(found, reference(coco, results["segm"], "segm"))
    assert found.stats[0] == 0
    assert "different sizes" in caplog.text


def test_published_example(external_data):
    folder = external_data("coco_eval_val2014_100")
    coco = read_coco(folder / "instances_val2014_100.json")
    for iou_type in ("bbox", "segm"):
        path = folder / f"instances_val2014_fake{iou_type}100_results.json"
        results = json.loads(path.read_text())
        expected = reference(coco, results, iou_type)
        assert_equal(fast(coco, results, iou_type), expected)
        evaluation = FastCocoEval(coco, Detections.read(path, iou_type))
        evaluation.evaluate()
        evaluation.accumulate()
        assert np.array_equal(evaluation.eval["precision"], expected.eval["precision"])


def test_without_the_extension_too(repository):
    code = (
        "import sys; sys.modules['maskrcnn_benchmark._C'] = None\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tests.evaluation.random_coco import random_coco, reference\n"
        "from tests.evaluation.test_fast_coco import assert_equal, fast\n"
        "for seed in range(2):\n"
        "    coco, results = random_coco(seed)\n"
        "    for kind in ('bbox', 'segm'):\n"
        "        assert_equal(fast(coco, results[kind], kind), reference(coco, results[kind], kind))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_annotation_without_what_is_evaluated():
    coco, results = random_coco(0)
    del coco.dataset["annotations"][0]["bbox"]
    with pytest.raises(ValueError, match="no 'bbox', which the evaluation of bbox needs"):
        fast(coco, results["bbox"], "bbox")


def test_annotations_without_iscrowd():
    coco, results = random_coco(2, crowds=0.0)
    expected = reference(coco, results["bbox"], "bbox")
    for annotation in coco.dataset["annotations"]:
        del annotation["iscrowd"]
    assert_equal(fast(coco, results["bbox"], "bbox"), expected)


def test_columns_give_the_list_back(tmp_path):
    _, results = random_coco(1)
    for iou_type, own in results.items():
        columns = Detections.from_list(own, iou_type)
        assert columns.iou_type == iou_type
        assert columns.to_list() == own
        halves = [Detections.from_list(part, iou_type) for part in (own[:9], [], own[9:])]
        assert Detections.join(halves, iou_type).to_list() == own
        (tmp_path / "results.json").write_text(json.dumps(own))
        assert Detections.read(tmp_path / "results.json", iou_type).to_list() == own
    assert Detections.from_list([], "segm").to_list() == []


def test_a_file_is_read_in_pieces(tmp_path):
    _, results = random_coco(1)
    (tmp_path / "segm.json").write_text(json.dumps(results["segm"]))
    pieces = list(read_items(tmp_path / "segm.json", piece=500))
    assert len(pieces) > 10
    assert [result for piece in pieces for result in piece] == results["segm"]
    (tmp_path / "segm.json").write_text(json.dumps(results["segm"])[:-1])
    with pytest.raises(UnsplittableError):
        list(read_items(tmp_path / "segm.json", piece=500))


def test_a_file_of_something_else(tmp_path):
    for text in ('{"a": 1}', "[1, 2]", '[{"image_id": 1}]', "[", ""):
        (tmp_path / "bbox.json").write_text(text)
        with pytest.raises(ValueError, match=r"bbox\.json is not a list of COCO results of the kind bbox"):
            Detections.read(tmp_path / "bbox.json", "bbox")
