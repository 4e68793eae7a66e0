"""MLPerf's log of a training run: its events by themselves, and as MLCommons' own checker reads them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from maskrcnn_benchmark.apps import train as train_app
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.tracking import MlperfSink
from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture

# What the rules of maskrcnn ask of the settings, which those of the tiny run are not made for.
SETTINGS = {
    "SOLVER.STEPS": "(2, 3)",
    "SOLVER.GAMMA": 0.1,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 1000,
    "MLPERF.LOG": "mlperf.log",
    "MLPERF.DIVISION": "open",
}
# Keys that the rules want once, beside the intervals.
ONCE = {
    "submission_benchmark", "submission_division", "submission_status", "submission_org", "submission_platform",
    "seed", "global_batch_size", "gradient_accumulation_steps", "num_image_candidates", "opt_name",
    "opt_base_learning_rate", "opt_learning_rate_warmup_steps", "opt_learning_rate_warmup_factor",
    "opt_learning_rate_decay_factor", "opt_learning_rate_decay_steps", "opt_weight_decay", "min_image_size",
    "max_image_size", "train_samples", "eval_samples",
}  # fmt: skip


def read(path):
    lines = path.read_text().splitlines()
    assert all(line.startswith(":::MLLOG {") for line in lines)
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]


def intervals(events):
    """The names of the intervals as a sequence such as ["(run", "(epoch", ")epoch", ")run"]; they must nest."""
    sequence, inside = [], []
    for event in events:
        if event["event_type"] == "POINT_IN_TIME":
            continue
        name, _, end = event["key"].rpartition("_")
        if event["event_type"] == "INTERVAL_START":
            assert end == "start"
            inside.append(name)
            sequence.append(f"({name}")
        else:
            assert end == "stop"
            assert inside.pop() == name
            sequence.append(f"){name}")
    assert inside == []
    return sequence


EPOCH = ["(block", "(epoch", ")epoch", ")block"]
EVALUATION = ["(eval", ")eval"]


def test_a_run_that_is_evaluated_after_each_epoch(tiny_run):
    tiny_run.train(keys={**SETTINGS, "PER_EPOCH_EVAL": True, "MIN_BBOX_MAP": 2.0})
    events = read(tiny_run.output / "mlperf.log")
    # five images with objects in batches of two: two iterations an epoch, four in all
    assert intervals(events) == ["(init", ")init", "(run", *(EPOCH + EVALUATION) * 2, ")run"]
    counts = Counter(event["key"] for event in events)
    assert {key for key, count in counts.items() if count == 1} >= ONCE
    values = {event["key"]: event["value"] for event in events}
    assert (values["global_batch_size"], values["opt_learning_rate_decay_steps"]) == (2, [2, 3])
    assert (values["train_samples"], values["eval_samples"]) == (5, 6)
    assert [event["metadata"]["epoch_num"] for event in events if event["key"] == "epoch_start"] == [1, 2]
    assert [event["metadata"]["epoch_num"] for event in events if event["key"] == "eval_accuracy"] == [1, 2]
    assert set(values["eval_accuracy"]) == {"BBOX", "SEGM"}
    assert [event["metadata"]["step"] for event in events if event["key"] == "tracked_stats"] == [1, 2, 3, 4]
    assert events[-1]["metadata"] == {"status": "aborted"}
    times = [event["time_ms"] for event in events]
    assert times == sorted(times)


@pytest.fixture
def complaints():
    """``complaints(path)``: what MLCommons' checker has to say against a log, warnings included."""
    module = pytest.importorskip(
        "mlperf_logging.compliance_checker.mlp_compliance", reason="mlperf-logging is not installed"
    )

    def run(path):
        checker = module.make_checker("training", "3.1.0", quiet=False, werror=True)
        valid, *_ = module.main(str(path), "training_3.1.0/common.yaml", checker)
        found = [*checker.overwritable.values(), *checker.not_overwritable]
        assert valid == (not found)
        return found

    return run


@pytest.mark.extras
@pytest.mark.parametrize("after_each_epoch", [False, True])
def test_the_checker_reads_the_log_of_a_run(tiny_run, complaints, after_each_epoch):
    tiny_run.train(keys={**SETTINGS, "PER_EPOCH_EVAL": after_each_epoch})
    log = tiny_run.output / "mlperf.log"
    assert complaints(log) == []
    # The closed division asks for COCO's quality too, and for nothing else that is not there.
    closed = tiny_run.folder / "closed.log"
    closed.write_text(log.read_text().replace('"open"', '"closed"'))
    (complaint,) = complaints(closed)
    assert "v['value']['BBOX'] >= 0.377" in complaint


@pytest.mark.extras
def test_the_checker_finds_what_is_missing(tiny_run, complaints):
    tiny_run.train(keys=SETTINGS)
    lines = (tiny_run.output / "mlperf.log").read_text().splitlines(keepends=True)
    broken = tiny_run.folder / "broken.log"
    broken.write_text("".join(line for line in lines if '"run_stop"' not in line and '"train_samples"' not in line))
    assert len(complaints(broken)) == 2


@pytest.mark.extras
@pytest.mark.parametrize("log", ["v3.1_nvidia_eos_8xH100_result_0.txt"])
def test_the_checker_accepts_a_published_log(external_data, complaints, log):
    assert complaints(external_data("mlperf_maskrcnn_logs") / log) == []


def make_sink(path):
    return MlperfSink(str(path), aim={"bbox": 0.377, "segm": 0.339})


@pytest.mark.parametrize(
    ("bbox", "segm", "status"), [(0.38, 0.34, "success"), (0.38, 0.33, "aborted"), (0.37, 0.34, "aborted")]
)
def test_status_says_whether_the_aim_was_reached(tmp_path, bbox, segm, status):
    sink = make_sink(tmp_path / "log")
    sink.start_run()
    sink.begin_evaluation(10)
    sink.end_evaluation({"bbox": {"AP": bbox}, "segm": {"AP": segm}})
    sink.begin_evaluation(10)
    sink.end_evaluation({"bbox": {"AP": 0.0}, "segm": {"AP": 0.0}})
    sink.close()
    assert read(tmp_path / "log")[-1]["metadata"] == {"status": status}


def test_epochs_of_a_resumed_run_that_ends_within_one(tmp_path):
    sink = make_sink(tmp_path / "log")
    sink.start_run()
    seen = []
    after = sink.follow(
        lambda iteration: seen.append(iteration), first=5, last=11, iterations_per_epoch=4, num_images=8
    )
    for iteration in range(6, 12):
        assert not after(iteration=iteration)
    sink.close()
    events = read(tmp_path / "log")
    assert intervals(events) == ["(init", ")init", "(run", *EPOCH * 2, ")run"]
    assert [event["metadata"]["epoch_num"] for event in events if event["key"] == "epoch_start"] == [2, 3]
    assert seen == list(range(6, 12))


def test_a_stop_begins_no_further_epoch(tmp_path):
    sink = make_sink(tmp_path / "log")
    sink.start_run()
    after = sink.follow(lambda iteration: iteration == 4, first=0, last=12, iterations_per_epoch=4, num_images=8)
    assert [after(iteration=iteration) for iteration in range(1, 5)] == [False, False, False, True]
    sink.close()
    assert [event["key"] for event in read(tmp_path / "log")].count("epoch_start") == 1


def test_off_it_is_not_in_the_way():
    def callback(iteration):
        return False

    sink = MlperfSink()
    assert sink.follow(callback, first=0, last=4, iterations_per_epoch=2, num_images=4) is callback
    assert sink.follow(None, first=0, last=4, iterations_per_epoch=2, num_images=4) is None


@pytest.mark.parametrize(
    ("key", "value"), [("MLPERF.DIVISION", "half-open"), ("MLPERF.STATUS", "rented"), ("MLPERF.LOG", "no/such/file")]
)
def test_wrong_settings_are_named(tiny_run, capsys, key, value):
    keys = {"MLPERF.LOG": "mlperf.log", key: value}
    with pytest.raises(SystemExit):
        train_app.main(train_app.make_parser().parse_args(tiny_run.command(keys=keys)), cfg)
    error = capsys.readouterr().err
    assert key in error
    assert value in error
