"""Results by way of the disk: the same files and figures as all at once, in any order, from several processes."""

from __future__ import annotations

import json

import pytest
import torch

from maskrcnn_benchmark.evaluation import (
    ResultSpool,
    evaluate,
    load_predictions,
    save_predictions,
    write_results,
)
from maskrcnn_benchmark.evaluation import spool as module
from maskrcnn_benchmark.evaluation.predictions_file import PredictionsWriter
from maskrcnn_benchmark.structures.bounding_box import BoxList
from tests.evaluation import test_keypoints
from tests.evaluation.test_coco import FakeDataset

KINDS = ("bbox", "segm")


@pytest.fixture
def dataset():
    return FakeDataset()


def predictions_of(dataset):
    return {index: dataset.prediction(index) for index in range(3)}  # the last one is empty


def assert_same_entries(found, expected):
    assert list(found) == list(expected)
    for index, entry in expected.items():
        assert set(found[index]) == set(entry)
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                assert found[index][name].dtype == value.dtype
                assert torch.equal(found[index][name], value)
            else:
                assert found[index][name] == value


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_files_and_results_are_those_of_all_at_once(dataset, tmp_path, order):
    predictions = predictions_of(dataset)
    spool = ResultSpool(dataset, KINDS, tmp_path / "spooled")
    for index in order:
        spool.add(index, predictions[index])
    light, lists = spool.finish()
    spool.close()
    expected = write_results(dataset, predictions, tmp_path / "whole", iou_types=KINDS)
    save_predictions(tmp_path / "whole" / "predictions.pth", predictions)
    assert lists == expected
    for kind in KINDS:
        found = json.loads((tmp_path / "spooled" / f"{kind}.json").read_text())
        assert found == lists[kind] == json.loads((tmp_path / "whole" / f"{kind}.json").read_text())
    files = [torch.load(tmp_path / name / "predictions.pth", weights_only=True) for name in ("spooled", "whole")]
    assert_same_entries(*files)
    assert sorted(path.name for path in (tmp_path / "spooled").iterdir()) == [
        "bbox.json",
        "predictions.pth",
        "segm.json",
    ]
    assert list(light) == [0, 1, 2]
    assert not light[0].has_field("mask")
    results, _ = evaluate(dataset, light, None, iou_types=KINDS, results=lists)
    whole, _ = evaluate(dataset, predictions, None, iou_types=KINDS)
    assert results.results == whole.results


def test_nothing_found_is_an_empty_list(dataset, tmp_path):
    spool = ResultSpool(dataset, KINDS, tmp_path)
    for index in range(3):
        spool.add(index, dataset.prediction(index)[[]])
    _, lists = spool.finish()
    assert [(tmp_path / f"{kind}.json").read_text() for kind in KINDS] == ["[]", "[]"]
    assert lists == {"bbox": [], "segm": []}


def test_without_a_folder_no_masks_are_kept(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    spool = ResultSpool(dataset, ("bbox",), None)
    spool.add(0, dataset.prediction(0))
    (content,) = next(spool.chunks())
    assert len(content[1]) < 2 * 28 * 28
    _, lists = spool.finish()
    assert len(lists["bbox"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_records_of_other_processes(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1)  # every record travels alone
    predictions = predictions_of(dataset)
    first, second = (ResultSpool(dataset, KINDS, tmp_path / name) for name in "ab")
    first.add(1, predictions[1])
    for index in (2, 0, 1):
        second.add(index, predictions[index][:1])
    parts = list(second.chunks())
    assert [len(part) for part in parts] == [1, 1, 1]
    for part in parts:
        first.absorb(part)
    assert len(first) == 3
    light, lists = first.finish()
    assert [len(light[index]) for index in range(3)] == [1, 1, 0]
    # Of the image that both had, the own record stays.
    assert len(light[1]) == len(predictions[1])
    assert lists == write_results(dataset, {**predictions, 0: predictions[0][:1]}, None, iou_types=KINDS)


def test_an_error_leaves_no_half_written_file(dataset, tmp_path, monkeypatch):
    spool = ResultSpool(dataset, KINDS, tmp_path)
    for index, prediction in predictions_of(dataset).items():
        spool.add(index, prediction)
    write = PredictionsWriter.add

    def fail(self, index, entry):
        write(self, index, entry)
        if index == 1:
            raise OSError("No space left on device")

    monkeypatch.setattr(PredictionsWriter, "add", fail)
    with pytest.raises(OSError, match="No space left"):
        spool.finish()
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_all_kinds_survive(dataset, tmp_path):
    tensors = {
        "half": torch.rand(2, 3).half(),
        "rounded": torch.rand(3).bfloat16(),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "turned": torch.rand(4, 5).T,
    }
    unpacked = module._unpack(module._pack(tensors))
    writer = PredictionsWriter(tmp_path / "a" / "predictions.pth")
    writer.add(5, {**tensors, "size": (3, 4)})
    writer.add(2, {})
    writer.close()
    loaded = torch.load(tmp_path / "a" / "predictions.pth", weights_only=True)
    mapped = torch.load(tmp_path / "a" / "predictions.pth", weights_only=True, mmap=True)
    assert_same_entries({5: unpacked}, {5: tensors})
    assert_same_entries(loaded, {5: {**tensors, "size": (3, 4)}, 2: {}})
    assert_same_entries(mapped, loaded)


def test_equal_predictions_make_equal_files(dataset, tmp_path):
    for name in ("a.pth", "b.pth"):
        writer = PredictionsWriter(tmp_path / name)
        writer.add(0, {"bbox": torch.arange(4.0)})
        writer.close()
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_keypoints_and_proposals_go_the_same_way(tmp_path):
    dataset = test_keypoints.make_dataset(tmp_path)
    predictions = test_keypoints.predictions_of(dataset, scale=2.0)
    spool = ResultSpool(dataset, ("bbox", "keypoints"), tmp_path / "out")
    for index, prediction in predictions.items():
        spool.add(index, prediction)
    light, lists = spool.finish()
    assert lists == write_results(dataset, predictions, None, iou_types=("bbox", "keypoints"))
    assert len(lists["keypoints"]) > 2
    loaded = load_predictions(tmp_path / "out" / "predictions.pth")
    for own in (light, loaded):
        for index, prediction in predictions.items():
            points = own[index].get_field("keypoints")
            assert torch.equal(points.keypoints, prediction.get_field("keypoints").keypoints)
            assert torch.equal(points.get_field("logits"), prediction.get_field("keypoints").get_field("logits"))
    proposals = BoxList(torch.tensor([[0.0, 0, 9, 9]]), (20, 20))
    proposals.add_field("objectness", torch.tensor([0.5]))
    spool = ResultSpool(dataset, (), None)
    spool.add(0, proposals)
    light, lists = spool.finish()
    assert torch.equal(light[0].get_field("objectness"), torch.tensor([0.5]))
    assert lists == {}
