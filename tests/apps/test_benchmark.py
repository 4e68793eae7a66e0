"""tools/benchmark.py on a tiny network: what it measures, what it attaches, and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.apps import benchmark
from maskrcnn_benchmark.apps.benchmark_plan import build_shapes, split_list, split_variant
from maskrcnn_benchmark.apps.benchmark_report import format_rows
from maskrcnn_benchmark.config import cfg
from tests.apps.tiny_run import CONFIG, OPTIONS, tiny_run

__all__ = ["tiny_run"]  # a fixture

REPOSITORY = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("one_thread", "clean_logger")


def words(*flags, keys=None, device="cpu"):
    pairs = {**OPTIONS, "MODEL.DEVICE": device, **(keys or {})}
    return ["--config-file", str(CONFIG), *flags, *(str(word) for pair in pairs.items() for word in pair)]


def run(*flags, **keywords):
    return benchmark.main(benchmark.make_parser().parse_args(words(*flags, **keywords)), cfg)


SHORT = ("--synthetic", "--warmup", "1", "--iterations", "2", "--stage-iterations", "1")


def test_rows_of_a_sweep(tmp_path, capsys):
    out, summary = tmp_path / "new" / "out.json", tmp_path / "dllogger.out"
    rows = run(
        *SHORT, "--task", "train,inference", "--batch-sizes", "1,2", "--variants", "eager,fixed_slots",
        "--peak-tflops", "0.05", "--out", str(out), "--json-summary", str(summary),
    )  # fmt: skip
    assert [(row["task"], row["variant"], row["batch_size"]) for row in rows] == [
        (task, variant, size)
        for task in ("train", "inference")
        for variant in ("eager", "fixed_slots")
        for size in (1, 2)
    ]
    written = json.loads(out.read_text())
    assert written["rows"] == rows
    assert written["machine"]["torch"] == torch.__version__
    for row in rows:
        times = row["step_ms" if row["task"] == "train" else "latency_ms"]
        assert times["p50"] <= times["p90"] <= times["p95"] <= times["p99"]
        assert row["images_per_second"] == pytest.approx(2 * row["batch_size"] / row["seconds"])
        assert row["mfu"] == pytest.approx(row["images_per_second"] * row["tflop_per_image"] / 0.05, rel=1e-6)
        stages = row["stages_ms"]
        assert {"data", "backbone", "fpn", "rpn_head", "proposals", "box_head", "mask_head", "other"} <= set(stages)
        assert {"rpn_loss", "backward", "optimizer"} <= set(stages) or row["task"] == "inference"
        assert all(value > 0 for name, value in stages.items() if name != "other")
        assert stages["other"] > -1
    printed = capsys.readouterr().out
    assert format_rows(rows) in printed
    # the lines that scripts read the speed from
    assert printed.count("maskrcnn_benchmark.trainer INFO: Total training time: ") == 4
    assert "s / img per device, on 1 devices)" in printed
    last = json.loads(summary.read_text().splitlines()[-1].removeprefix("DLLL "))
    assert last["data"]["inference_perf_fps"] == rows[-1]["images_per_second"]
    assert last["data"]["latency_99"] == pytest.approx(rows[-1]["latency_ms"]["p99"] / 1e3)


def test_the_number_of_positives_is_said_and_kept():
    few, many = (run(*SHORT, "--positives", count, "--no-flops")[0]["regions_per_image"] for count in ("10", "16"))
    assert 10 <= few < many == 16  # the demo's heads take 16 at most


def test_real_data(tiny_run, capsys):
    data = {
        "DATASETS.CUSTOM": str(tiny_run.data.custom("tiny")),
        "DATASETS.TRAIN": "('tiny',)",
        "DATASETS.TEST": "('tiny',)",
        "SOLVER.MAX_ITER": 7,
        "OUTPUT_DIR": str(tiny_run.output),
    }
    flags = ("--task", "train,inference", "--warmup", "1", "--iterations", "0", "--stage-iterations", "1")
    training, inference = run(*flags, keys=data)
    assert training["iterations"] == 5  # of seven, without the warm-up and the stages
    assert inference["iterations"] == 4  # six images, landscape and upright apart, in batches of two
    assert not (tiny_run.output / "log.txt").exists()
    assert "regions/img" in capsys.readouterr().out


def test_a_trace_shows_the_stages(tmp_path):
    run("--synthetic", "--warmup", "0", "--iterations", "1", "--stage-iterations", "0", "--no-flops", "--profile",
        str(tmp_path / "trace.json"))  # fmt: skip
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    named = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert named.count("mask_head") == 3


def test_a_row_without_memory_lets_the_others_go_on(monkeypatch, capsys):
    build, calls = benchmark.build_training_run, []

    def build_or_fail(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return build(*arguments, **keywords)

    monkeypatch.setattr(benchmark, "build_training_run", build_or_fail)
    first, second = run(*SHORT, "--batch-sizes", "2,1", "--no-flops")
    assert first["error"] == "out of memory"
    assert second["images_per_second"] > 0
    assert "out of memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--task", "test"), "--task"),
        (("--variants", "fast"), "'fast' is neither KEY=VALUE"),
        (("--batch-sizes", "one"), "--batch-sizes"),
        (("--variants", "eager,deterministic"), "command of their own"),
        (("--variants", "cuda_graphs"), "MODEL.CAPTURE"),
        (("--task", "inference", "--iterations", "0"), "--iterations 0"),
        (("--dtypes", "float8"), "DTYPE"),
    ],
)
def test_wrong_options_are_named(capsys, flags, named):
    with pytest.raises(SystemExit):
        run("--synthetic", *flags)
    assert named in capsys.readouterr().err


def test_lists_and_variants():
    assert split_list("a, INPUT.SHAPE_BUCKETS=((64,96),(96,64))+nhwc,b") == [
        "a", "INPUT.SHAPE_BUCKETS=((64,96),(96,64))+nhwc", "b"
    ]  # fmt: skip
    assert split_variant("nhwc+SOLVER.BASE_LR=0.5") == ["NHWC", "True", "SOLVER.BASE_LR", "0.5"]
    config = cfg.clone()
    config.DATALOADER.SIZE_DIVISIBILITY = 32
    assert build_shapes(config, None) == ((800, 1344), (1344, 800))
    assert build_shapes(config, (500, 600)) == ((512, 608),)


@pytest.mark.slow
def test_two_processes_add_up(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, "tools/benchmark.py", *words(*SHORT, "--batch-sizes", "1", "--out", str(out))],
        capture_output=True, text=True, timeout=300, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Total training time" in done.stdout
    (row,) = json.loads(out.read_text())["rows"]
    assert row["world_size"] == 2
    assert row["images_per_second"] == pytest.approx(2 * 2 / row["seconds"])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
def test_rows_of_a_gpu(tmp_path, dtype):
    variants = "nchw,nhwc,nhwc+cuda_graphs"
    flags = ("--task", "train,inference", "--dtypes", dtype, "--variants", variants, "--peak-tflops", "100")
    rows = run(*SHORT, *flags, "--profile", str(tmp_path / "trace.json"), device="cuda")
    assert len(rows) == 6
    for row in rows:
        assert row["dtype"] == dtype
        assert row["mfu"] > 0
        assert row["peak_memory_mib"] > 1
        assert ("trunk" in row["stages_ms"]) == (row["task"] == "train" and "cuda_graphs" in row["variant"])
        total = sum(row["stages_ms"].values())
        assert row["stages_ms"]["mask_head"] < total
    assert len(list(tmp_path.glob("trace_*.json"))) == 6
