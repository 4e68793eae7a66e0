"""The published network on real photographs: trained, killed, resumed, evaluated, with one and two processes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ITERATIONS = 20
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHT": "",
    "INPUT.MIN_SIZE_TRAIN": 320,
    "INPUT.MAX_SIZE_TRAIN": 533,
    "INPUT.MIN_SIZE_TEST": 320,
    "INPUT.MAX_SIZE_TEST": 533,
    "DTYPE": "float32",
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 0.002,
    "SOLVER.MAX_ITER": ITERATIONS,
    "SOLVER.CHECKPOINT_PERIOD": 5,
    "SOLVER.LOG_PERIOD": 1,
    "TEST.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 1,
}


def start(repository, data_dir, output_dir, num_processes):
    program = ["tools/train_net.py", "--config-file", "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"]
    program += ["--json-summary", str(output_dir / "dllogger.out"), "OUTPUT_DIR", str(output_dir)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    options = [str(item) for pair in OPTIONS.items() for item in pair]
    command = [sys.executable, *(launcher if num_processes > 1 else []), *program, *options]
    environment = os.environ | {"DATA_DIR": str(data_dir), "OMP_NUM_THREADS": str(2 // num_processes)}
    log = (output_dir / "out.txt").open("a")
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=log, stderr=log, start_new_session=True)


def kill_after_checkpoint(process, output_dir, iteration, timeout=600):
    """SIGKILL to the whole job once the checkpoint is there and training has gone on from it."""
    deadline = time.monotonic() + timeout
    metrics = output_dir / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        written = (output_dir / f"model_{iteration:07d}.pth").exists()
        if written and any(i > iteration for i in logged_iterations(metrics)):
            break
        time.sleep(0.2)
    assert process.poll() is None, (output_dir / "out.txt").read_text()[-3000:]
    # the launcher gives each worker a session of its own, so a signal to its group would leave them running
    for pid in processes_that_name(output_dir):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while processes_that_name(output_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_that_name(output_dir) == []


def processes_that_name(folder):
    """Numbers of the living processes with this folder on their command line (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if str(folder).encode() in words:
            found.append(int(entry.parent.name))
    return found


def logged_rows(path):
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that the kill cut off
            continue
    return [row for row in rows if "loss" in row]


def logged_iterations(path):
    return [row["iteration"] for row in logged_rows(path)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num_processes", [1, 2])
def test_train_kill_resume_evaluate(repository, external_data, tmp_path, num_processes):
    data_dir = external_data("coco_tiny")
    process = start(repository, data_dir, tmp_path, num_processes)
    kill_after_checkpoint(process, tmp_path, 5)
    assert not (tmp_path / "model_final.pth").exists()

    process = start(repository, data_dir, tmp_path, num_processes)
    assert process.wait(timeout=1500) == 0, (tmp_path / "out.txt").read_text()[-3000:]
    assert "Resuming at iteration 5" in (tmp_path / "log.txt").read_text()
    rows = logged_rows(tmp_path / "metrics.jsonl")
    assert {row["iteration"] for row in rows} == set(range(1, ITERATIONS + 1))
    assert all(math.isfinite(row["loss"]) for row in rows)
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == ITERATIONS
    assert checkpoint["world_size"] == num_processes
    inference = tmp_path / "inference" / "coco_2017_val"
    for name in ("bbox.json", "segm.json", "predictions.pth", "coco_results.pth"):
        assert (inference / name).exists()
    image_ids = {
        entry["id"] for entry in json.loads((data_dir / "annotations/instances_val2017.json").read_text())["images"]
    }
    assert {entry["image_id"] for entry in json.loads((inference / "bbox.json").read_text())} <= image_ids
