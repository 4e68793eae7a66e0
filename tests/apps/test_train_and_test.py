"""tools/train_net.py and tools/test_net.py on a real, tiny network and data set: what they print, write and resume."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys

import pytest
import torch
import yaml

from maskrcnn_benchmark.apps import start
from maskrcnn_benchmark.apps.errors import describe, user_errors
from maskrcnn_benchmark.apps.train import make_parser
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture


def rows_of(path):
    """The lines of metrics.jsonl that belong to an iteration, by iteration."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["iteration"]: row for row in rows if row["iteration"] is not None}


def assert_same_state(left, right):
    """Checkpoints with equal weights, momentum, schedule and loss series, bit for bit."""
    first, second = (torch.load(path, weights_only=True) for path in (left, right))
    assert first["model"].keys() == second["model"].keys()
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name
    momenta = [[entry["momentum_buffer"] for entry in data["optimizer"]["state"].values()] for data in (first, second)]
    assert len(momenta[0]) == len(momenta[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    for key in ("iteration", "scheduler", "meters"):
        assert first[key] == second[key], key


def losses(path):
    return {
        iteration: {name: value for name, value in row.items() if "loss" in name or name == "learning_rate"}
        for iteration, row in rows_of(path).items()
    }


def test_train_writes_what_the_contract_lists(tiny_run, capsys):
    tiny_run.train()
    out = capsys.readouterr().out
    output = tiny_run.output
    names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    inference = {f"inference/tiny/{name}" for name in ("bbox.json", "segm.json", "predictions.pth", "coco_results.pth")}
    assert names >= inference | {
        "config.yml", "log.txt", "metrics.jsonl", "last_checkpoint", "model_0000002.pth", "model_0000004.pth",
        "model_final.pth",
    }  # fmt: skip
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in names)
    assert (output / "last_checkpoint").read_text() == str(output / "model_final.pth")

    log = (output / "log.txt").read_text()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    for text in (out, log):
        assert re.search(
            rf"^{time} maskrcnn_benchmark\.trainer INFO: Total training time: 0:00:\d\d\.\d+ \(\d\.\d{{4}} s / it\)$",
            text,
            re.MULTILINE,
        )
        assert re.search(
            rf"^{time} maskrcnn_benchmark\.inference INFO: Total inference time: 0:00:\d\d\.\d+ "
            r"\(\d\.\d{5} s / img per device, on 1 devices\)$",
            text,
            re.MULTILINE,
        )
    assert re.findall(r" eta: \d:\d\d:\d\d  iter: (\d)  loss: ", log) == ["1", "2", "3", "4"]
    overall = re.findall(r"^ Average Precision  \(AP\) @\[ IoU=0\.50:0\.95 \| area=   all \| maxDets=100 \]", out, re.M)
    assert len(overall) == 2
    assert yaml.safe_load((output / "config.yml").read_text())["SOLVER"]["MAX_ITER"] == 4

    records = [
        json.loads(line.removeprefix("DLLL ")) for line in (tiny_run.folder / "dllogger.out").read_text().splitlines()
    ]
    assert {record["metric"] for record in records if record["type"] == "METADATA"} == {
        "BBOX_mAP", "MASK_mAP", "e2e_train_time", "train_perf_fps"
    }  # fmt: skip
    assert records[-1]["data"].keys() == {"BBOX_mAP", "MASK_mAP", "e2e_train_time", "train_perf_fps"}
    lines = [line for line in out.splitlines() if line.startswith("DLL ")]
    assert any(re.search(r" - Training Iteration: 4 Training Epoch: \d  *eta : 0:00:00 ", line) for line in lines)


def test_a_stopped_run_resumes_by_itself_and_equals_the_whole_one(tiny_run, capsys):
    tiny_run.train("--skip-test", keys={"DATALOADER.NUM_WORKERS": 0})
    resumed = tiny_run.copy_until(2, "resumed")
    capsys.readouterr()
    torch.rand(77)
    tiny_run.train("--skip-test", keys={"OUTPUT_DIR": resumed, "DATALOADER.NUM_WORKERS": 1})
    assert "Resuming at iteration 2" in capsys.readouterr().out
    assert_same_state(tiny_run.output / "model_final.pth", resumed / "model_final.pth")
    whole, part = losses(tiny_run.output / "metrics.jsonl"), losses(resumed / "metrics.jsonl")
    assert list(part) == [3, 4]
    assert part == {iteration: whole[iteration] for iteration in part}


def launch(launcher, tiny_run, repository, tool, *flags, keys=None):
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "--nproc_per_node=2", f"tools/{tool}", *tiny_run.command(*flags, keys=keys)],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(900)
def test_two_processes_by_both_launchers(tiny_run, repository):
    """Torchrun trains and evaluates; torch.distributed.launch (--local-rank) goes on from the middle, to one end."""
    out = launch(("torch.distributed.run", "--standalone"), tiny_run, repository, "train_net.py")
    assert "Using 2 process(es) on cpu" in out
    assert "s / img per device, on 2 devices)" in out
    assert out.count("Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]") == 2
    # Six images over two processes: each exactly once.
    detections = json.loads((tiny_run.output / "inference" / "tiny" / "bbox.json").read_text())
    assert len({json.dumps(detection) for detection in detections}) == len(detections)
    assert torch.load(tiny_run.output / "model_final.pth", weights_only=True)["world_size"] == 2

    resumed = tiny_run.copy_until(2, "resumed")
    with socket.socket() as probe:  # a port that is free now; this launcher cannot choose one itself
        probe.bind(("127.0.0.1", 0))
        port = f"--master_port={probe.getsockname()[1]}"
    out = launch(
        ("torch.distributed.launch", port), tiny_run, repository, "train_net.py", "--skip-test",
        keys={"OUTPUT_DIR": resumed},
    )  # fmt: skip
    assert "Resuming at iteration 2" in out
    assert_same_state(tiny_run.output / "model_final.pth", resumed / "model_final.pth")


def test_threads_from_the_config(tiny_run):
    before = torch.get_num_threads()
    try:
        for asked, used in ((before + 1, before + 1), (0, before + 1)):
            tiny_run.train("--skip-test", "--skip_checkpoint", "--max_steps", "1", keys={"CPU_THREADS": asked})
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def test_flags_of_training(tiny_run, capsys):
    tiny_run.train("--max_steps", "1", "--skip-test", "--skip_checkpoint")
    assert list(rows_of(tiny_run.output / "metrics.jsonl")) == [1]
    assert not list(tiny_run.output.glob("*.pth"))
    assert not (tiny_run.output / "inference").exists()
    assert "Average Precision" not in capsys.readouterr().out


def test_evaluation_after_an_epoch_ends_the_run(tiny_run):
    # Two iterations an epoch: five images have objects.
    keys = {"PER_EPOCH_EVAL": True, "MIN_BBOX_MAP": 0.0, "MIN_MASK_MAP": 0.0, "SOLVER.CHECKPOINT_PERIOD": 100}
    tiny_run.train(keys=keys)
    assert list(rows_of(tiny_run.output / "metrics.jsonl")) == [1, 2]
    assert torch.load(tiny_run.output / "model_final.pth", weights_only=True)["iteration"] == 2
    log = (tiny_run.output / "log.txt").read_text()
    assert log.count("Start evaluation on tiny") == 1
    assert "Target mAP reached" in log


def test_accumulation_from_the_config(tiny_run):
    tiny_run.train("--skip-test", keys={"SOLVER.ACCUMULATE_GRAD": True, "SOLVER.ACCUMULATE_STEPS": 2})
    assert torch.load(tiny_run.output / "model_final.pth", weights_only=True)["scheduler"]["last_epoch"] == 2


@pytest.mark.parametrize("flags", [("DTYPE", "bfloat16"), ("DTYPE", "float16"), ("--amp",)])
def test_half_precision_trains_near_float32(tiny_run, monkeypatch, flags):
    # Also on processors without such instructions: the network is small enough.
    monkeypatch.setattr("maskrcnn_benchmark.engine.precision.cpu_is_fast_in", lambda dtype: True)
    keys = dict([flags]) if flags[0] == "DTYPE" else {}
    tiny_run.train("--max_steps", "2", *(flags if not keys else ()), keys=keys)
    half = losses(tiny_run.output / "metrics.jsonl")
    full_output = tiny_run.folder / "full"
    tiny_run.train("--max_steps", "2", "--skip-test", keys={"OUTPUT_DIR": full_output})
    full = losses(full_output / "metrics.jsonl")
    assert half != full
    # From the same weights; a few of the sampled proposals differ, so the losses are near, not equal.
    assert half[1]["loss"] == pytest.approx(full[1]["loss"], rel=0.1)
    assert half[1]["loss_objectness"] == pytest.approx(full[1]["loss_objectness"], rel=0.01)
    assert (tiny_run.output / "inference" / "tiny" / "segm.json").exists()


def test_a_machine_without_cuda_falls_back_and_says_so(tiny_run, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny_run.train("--max_steps", "1", "--skip-test", keys={"MODEL.DEVICE": None})
    assert "No CUDA device was found: running on the CPU" in capsys.readouterr().out


def test_evaluate_the_newest_checkpoint(tiny_run, capsys):
    tiny_run.train("--skip-test")
    tiny_run.test()
    out = capsys.readouterr().out
    assert f"Loading checkpoint from {tiny_run.output / 'model_final.pth'}" in out
    assert "Average Precision" in out
    folder = tiny_run.output / "inference" / "tiny"
    whole = json.loads((folder / "bbox.json").read_text())

    (folder / "bbox.json").unlink()
    (folder / "segm.json").unlink()
    tiny_run.test("--skip-eval")
    assert "Average Precision" not in capsys.readouterr().out
    assert json.loads((folder / "bbox.json").read_text()) == whole
    assert (folder / "segm.json").exists()

    tiny_run.test("--skip-eval", "--infer_steps", "1")
    ids = {detection["image_id"] for detection in json.loads((folder / "bbox.json").read_text())}
    assert len(ids) <= 2

    capsys.readouterr()
    weight = tiny_run.output / "model_0000002.pth"
    tiny_run.test("--skip-eval", "--infer_steps", "1", keys={"MODEL.WEIGHT": weight})
    out = capsys.readouterr().out
    assert f"Weights from {weight}" in out
    assert f"{tiny_run.output / 'model_final.pth'} is not read" in out


def test_weights_start_a_new_run_with_other_classes(tiny_run, capsys):
    tiny_run.train("--skip-test", "--max_steps", "1")
    weight = tiny_run.folder / "start.pth"
    state = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["model"]
    state = {
        name: torch.cat([t, t]) if "predictor." in name and "conv5" not in name else t for name, t in state.items()
    }
    torch.save(state, weight)
    capsys.readouterr()
    fresh = tiny_run.folder / "fresh"
    tiny_run.train("--skip-test", "--max_steps", "1", keys={"OUTPUT_DIR": fresh, "MODEL.WEIGHT": weight})
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "Weights from" in line)
    assert "6 left out, 0 missing" in line
    assert "roi_heads.box.predictor.cls_score.weight" in line
    assert list(rows_of(fresh / "metrics.jsonl")) == [1]


@pytest.mark.parametrize("flag", ["--local_rank", "--local-rank"])
def test_both_spellings_of_the_local_rank(flag, monkeypatch):
    assert make_parser().parse_args([flag, "3"]).local_rank == 3
    assert make_parser().parse_args([f"{flag}=3", "SOLVER.MAX_ITER", "5"]).opts == ["SOLVER.MAX_ITER", "5"]
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert make_parser().parse_args([]).local_rank == 5


def test_a_users_own_set_up_runs_first(tiny_run, monkeypatch):
    calls = []
    monkeypatch.setattr(start, "setup_environment", lambda: calls.append("environment"))
    monkeypatch.setattr(start, "build_config", lambda args, cfg: calls.append("config") or pytest.fail("far enough"))
    with pytest.raises(pytest.fail.Exception):
        tiny_run.train()
    assert calls == ["environment", "config"]


def test_an_error_is_one_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as stop, user_errors():
        raise ValueError("SOLVER.X is 3;\nset it to 4")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: SOLVER.X is 3; set it to 4\n"


def test_debugging_shows_the_whole_traceback(monkeypatch):
    monkeypatch.setenv("MASKRCNN_DEBUG", "1")
    with pytest.raises(ValueError, match="as it is"), user_errors():
        raise ValueError("as it is")


def test_our_own_faults_are_not_hidden():
    with pytest.raises(AssertionError), user_errors():
        raise AssertionError


def test_an_interrupted_run_says_how_it_goes_on(capsys):
    with pytest.raises(SystemExit) as stop, user_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err


def test_a_run_ends_its_loader_workers(tiny_run):
    """At once, and not when the garbage collector next comes by, which then waits for them."""
    gc.collect()
    gc.disable()
    try:
        for run in (tiny_run.train, tiny_run.test):
            run(keys={"DATALOADER.NUM_WORKERS": 2})
            assert multiprocessing.active_children() == []
    finally:
        gc.enable()


def test_messages_are_freed_of_their_wrapping():
    assert describe(KeyError("no such key")) == "no such key"
    assert describe(ValueError()) == "ValueError"
    packed = (
        "Caught ValueError in DataLoader worker process 0.\n"
        'Original Traceback (most recent call last):\n  File "x.py"\n'
        "    raise ValueError(text)\nValueError: image 7.jpg is truncated\n"
    )
    assert describe(ValueError(packed)) == "image 7.jpg is truncated"


@pytest.mark.parametrize("num_objects", [0, 2])
def test_every_parameter_takes_part_in_every_step(tiny_run, num_objects):
    """DistributedDataParallel waits for each gradient, so none may be missing where an image has no objects."""
    config = start.build_config(make_parser().parse_args(tiny_run.command()), cfg)
    model = build_detection_model(config).train()
    target = BoxList(torch.tensor([[5.0, 5.0, 40.0, 40.0], [20.0, 10.0, 60.0, 50.0]])[:num_objects], (64, 64))
    target.add_field("labels", torch.ones(num_objects, dtype=torch.int64))
    squares = [[[x, x, x + 30, x, x + 30, x + 30, x, x + 30]] for x in (5.0, 20.0)]
    target.add_field("masks", SegmentationMask(squares[:num_objects], (64, 64), mode="poly"))
    losses = model(to_image_list([torch.rand(3, 64, 64)], 32), [target])
    sum(losses.values()).backward()
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in trainable if parameter.grad is None] == []
    assert all(torch.isfinite(loss) for loss in losses.values())
