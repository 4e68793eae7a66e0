"""Running a model over a data set: what comes out, how long it took, which files are written."""

from __future__ import annotations

import json
import logging
import re
import types

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from maskrcnn_benchmark.engine import inference as module
from maskrcnn_benchmark.engine import latency
from maskrcnn_benchmark.engine.inference import InferenceTimes, compute_on_dataset, gather_predictions, inference
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from tests.engine.inference_processes import SIZES, IndexLoader, Placed
from tests.engine.stand_ins import RecordingSink, TinyDetector, TinyLoader
from tests.engine.test_two_processes import start


class OneBox(torch.nn.Module):
    """Finds the box (10, 20, 29, 59) of class 1 in every image."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        found = []
        for height, width in images.image_sizes:
            boxes = BoxList(torch.tensor([[10.0, 20.0, 29.0, 59.0]]), (width, height))
            boxes.add_field("scores", torch.tensor([0.9]))
            boxes.add_field("labels", torch.tensor([1]))
            found.append(boxes)
        return found


class CocoDataset:
    """Three images of 100 x 80; the network sees them as they are."""

    def __init__(self):
        self.id_to_img_map = {0: 42, 1: 5, 2: 17}
        self.contiguous_category_id_to_json_id = {1: 900}
        self.coco = COCO()
        self.coco.dataset = {
            "images": [{"id": i, "height": 100, "width": 80} for i in (42, 5, 17)],
            "categories": [{"id": 900, "name": "bar"}],
            "annotations": [
                {"id": n, "image_id": i, "category_id": 900, "bbox": [10, 20, 20, 40], "area": 800, "iscrowd": 0}
                for n, i in enumerate((42, 5, 17), start=1)
            ],
        }
        self.coco.createIndex()

    def __len__(self):
        return 3

    def get_img_info(self, index):
        return {"height": 100, "width": 80}


class CocoLoader:
    def __init__(self):
        self.dataset = CocoDataset()

    def __iter__(self):
        for indices in ((0, 1), (2,)):
            yield ImageList(torch.zeros(len(indices), 3, 100, 80), [(100, 80)] * len(indices)), None, indices


@pytest.fixture
def messages(monkeypatch):
    found = []
    monkeypatch.setattr(latency.logger, "info", lambda text, *args: found.append(text % args))
    return found


def test_every_image_by_its_index():
    model = TinyDetector().train()
    loader = TinyLoader(3)
    found = compute_on_dataset(model, loader, "cpu")
    assert list(found) == [0, 1, 2, 3, 4, 5]
    assert not model.training
    with torch.no_grad():
        for images, _, indices in loader:
            for index, expected in zip(indices, model(images), strict=True):
                assert torch.equal(found[index].bbox, expected.bbox)
                assert not found[index].bbox.requires_grad


def test_steps_count_batches():
    times = InferenceTimes()
    assert list(compute_on_dataset(TinyDetector(), TinyLoader(3), "cpu", 2, times=times)) == [0, 1, 2, 3]
    assert times.images == [2, 2]
    assert compute_on_dataset(TinyDetector(), TinyLoader(3), "cpu", 0) == {}


def test_latencies_are_percentiles():
    seconds = np.random.RandomState(0).rand(200).tolist()
    figures = InferenceTimes(seconds, [1] * 200).figures()
    ordered = sorted(seconds)
    assert figures["latency_avg"] == pytest.approx(sum(seconds) / 200)
    for name, rank in (("latency_50", 100), ("latency_90", 180), ("latency_95", 190), ("latency_99", 198)):
        # nine of ten are below the 90th percentile, not: the mean of the fastest nine of ten
        assert ordered[rank - 1] <= figures[name] <= ordered[rank]
    assert figures["latency_avg"] < figures["latency_90"] < figures["latency_95"] < figures["latency_99"]
    assert InferenceTimes().figures() == {}


def test_latency_of_an_image_is_its_share_of_the_batch():
    figures = InferenceTimes([4.0, 1.0], [4, 1]).figures()
    assert figures["latency_avg"] == 2.5
    assert {figures[f"latency_image_{name}"] for name in ("avg", "50", "99")} == {1.0}
    single = InferenceTimes([0.5, 0.1, 0.3], [1, 1, 1]).figures()
    for name in ("avg", "50", "90", "95", "99"):
        assert single[f"latency_image_{name}"] == single[f"latency_{name}"]


def test_warm_up_does_not_count():
    times = InferenceTimes([100.0, 50.0, 1.0, 3.0], [1, 1, 2, 2], warm_up=2)
    assert times.figures()["latency_avg"] == 2.0
    assert times.figures()["latency_99"] < 3.01
    # A run of nothing but warm-up counts as a whole.
    assert InferenceTimes([100.0, 50.0], [1, 1], warm_up=2).figures()["latency_avg"] == 75.0


def test_throughput_without_the_warm_up(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(latency, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    sink = RecordingSink()
    for warm_up in (0, 1):
        inference(OneBox(), CocoLoader(), "tiny_val", device="cpu", sink=sink, warm_up=warm_up, num_resamples=0)
    (_, without, _), (_, after, _) = sink.rows
    # The clock is read at the beginning, after the warm-up, and at the end.
    assert (without["e2e_infer_time"], without["inference_perf_fps"]) == (10, 3 / 10)
    assert (after["e2e_infer_time"], after["inference_perf_fps"]) == (20, 1 / 10)


def test_predictions_of_one_process_are_sorted():
    assert list(gather_predictions({3: "c", 1: "a", 2: "b"})) == [1, 2, 3]


def test_evaluated(tmp_path, messages, capsys):
    sink = RecordingSink()
    results, coco_results = inference(
        OneBox(), CocoLoader(), "tiny_val", ("bbox",), False, "cpu", output_folder=str(tmp_path), sink=sink
    )
    assert results.results["bbox"]["AP"] == pytest.approx(1.0)
    line = next(text for text in messages if text.startswith("Total inference time"))
    found = re.fullmatch(r"Total inference time: 0:00:0\d\.\d+ \((\d\.\d{5}) s / img per device, on 1 devices\)", line)
    ((step, data, _),) = sink.rows
    assert step == ()
    assert set(data) == set(sink.units) == set(module.METADATA)
    assert float(found.group(1)) == pytest.approx(data["e2e_infer_time"] / 3, abs=1e-5)
    assert data["inference_perf_fps"] == pytest.approx(3 / data["e2e_infer_time"])
    assert "IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000" in capsys.readouterr().out
    assert coco_results["bbox"] == json.loads((tmp_path / "bbox.json").read_text())
    assert {entry["image_id"] for entry in coco_results["bbox"]} == {42, 5, 17}
    assert (tmp_path / "predictions.pth").exists()
    assert (tmp_path / "coco_results.pth").exists()


def test_skipped_evaluation_still_writes_the_results(tmp_path, capsys):
    outcome = inference(OneBox(), CocoLoader(), "tiny_val", device="cpu", output_folder=str(tmp_path), skip_eval=True)
    assert outcome is None
    expected = {"image_id": 42, "category_id": 900, "bbox": [10.0, 20.0, 20.0, 40.0]}
    first = json.loads((tmp_path / "bbox.json").read_text())[0]
    assert {name: first[name] for name in expected} == expected
    assert "Average Precision" not in capsys.readouterr().out


def test_a_whole_run_leaves_these_files(tmp_path):
    inference(OneBox(), CocoLoader(), "tiny_val", device="cpu", output_folder=str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bbox.json", "coco_results.pth", "evaluation.json", "predictions.pth"}
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["dataset"], report["kind"], report["num_images"]) == ("tiny_val", "coco", 3)


def test_a_deferred_evaluation_gives_the_same(tmp_path):
    evaluate = inference(
        OneBox(), CocoLoader(), "tiny_val", device="cpu", output_folder=str(tmp_path / "a"), defer=True
    )
    assert not (tmp_path / "a" / "coco_results.pth").exists()
    assert (tmp_path / "a" / "bbox.json").exists()
    results, lists = evaluate()
    expected, expected_lists = inference(
        OneBox(), CocoLoader(), "tiny_val", device="cpu", output_folder=str(tmp_path / "b"), coco_engine="pycocotools"
    )
    assert results.results == expected.results
    assert lists == expected_lists
    for name in ("coco_results.pth", "evaluation.json", "bbox.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_error_in_the_thread_is_raised(tmp_path, monkeypatch):
    def fail(self, index, prediction):
        raise OSError("No space left on device")

    monkeypatch.setattr(module.ResultSpool, "add", fail)
    with pytest.raises(OSError, match="No space left on device"):
        inference(OneBox(), CocoLoader(), "tiny_val", device="cpu", output_folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "processes", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, id="3")], ids=lambda value: str(value)
)
def test_several_processes_write_what_one_writes(tmp_path, repository, processes):
    start("inference_processes", processes, tmp_path, repository)
    for size in SIZES:
        together, alone = tmp_path / f"{size}", tmp_path / f"alone{size}"
        outcome = inference(
            Placed(), IndexLoader(size), "tiny", ("bbox", "segm"), device="cpu", output_folder=str(alone)
        )
        assert len(outcome[1]["bbox"]) == size
        assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
        for path in alone.iterdir():
            assert path.read_bytes() == (together / path.name).read_bytes(), path.name
    # Each rank saw its own images, and no image was seen twice.
    seen = [torch.load(tmp_path / f"seen{rank}.pth") for rank in range(processes)]
    for position, size in enumerate(SIZES):
        assert sorted(index for own in seen for index in own[position]) == [*range(size)]


def test_the_logger_has_the_published_name():
    assert module.logger is logging.getLogger("maskrcnn_benchmark.inference")
