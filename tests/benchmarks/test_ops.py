"""benchmarks/ops.py: its quick form, and that the peers it times do the same work as ours."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.ops import backend_info

pytestmark = pytest.mark.skipif(backend_info()["extension"] is None, reason="compares compiled kernels")


@pytest.fixture
def ops_benchmark(monkeypatch):
    monkeypatch.setenv("MASKRCNN_REQUIRE_EXT", "1")
    return importlib.import_module("benchmarks.ops")


def calls_of(ops_benchmark, group):
    return list(ops_benchmark.list_calls({group}, ops_benchmark.Setting(quick=True)))


def test_writes_rows_in_the_common_form(tmp_path, repository):
    out = tmp_path / "ops.json"
    command = [
        "benchmarks/ops.py",
        "match_boxes",
        "--quick",
        "--peers",
        "none",
        "--time-limit",
        "60",
        "--out",
        str(out),
    ]
    result = subprocess.run([sys.executable, *command], cwd=repository, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert {row["name"] for row in document["rows"]} == {"match_boxes"}
    assert all(set(row["results"]) == {"ours", "plain PyTorch"} for row in document["rows"])
    assert all(len(row["results"]["ours"]["samples"]) >= 3 for row in document["rows"])
    assert "match_boxes" in result.stdout


def test_a_peer_that_fails_is_named_and_left_out(ops_benchmark):
    def fail():
        raise RuntimeError("no kernel for this\nand more")

    call = ops_benchmark.Call("an op", "a case", lambda: 1, {"torchvision": lambda: fail, "mmcv": lambda: lambda: 1})
    contenders, failed = ops_benchmark.prepare(call, {"torchvision": "0.28.0"})
    assert list(contenders) == ["ours"]  # mmcv is not present
    assert failed == {"torchvision": "RuntimeError: no kernel for this"}


def test_no_time_leaves_everything_out_by_name(ops_benchmark, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ops.py", "match_boxes", "--quick", "--time-limit", "1e-9"])
    args = ops_benchmark.parse_arguments()
    rows, left_out = ops_benchmark.run(args, args.ops, {})
    assert rows == []
    assert len(left_out) == 3
    assert left_out[0].startswith("match_boxes, ")


@pytest.mark.extras
@pytest.mark.parametrize("group", ["roi_align", "match_boxes", "batched_nms", "deform_conv", "sigmoid_focal_loss"])
def test_torchvision_gets_the_same_results(ops_benchmark, group):
    from benchmarks._peers import PeerAbsent, load_torchvision

    try:
        load_torchvision()
    except PeerAbsent as error:
        pytest.skip(str(error))
    compared = 0
    for call in calls_of(ops_benchmark, group):
        if "torchvision" not in call.others or call.exact is None:
            continue
        ours, theirs = (as_list(result) for result in (call.ours(), call.others["torchvision"]()()))
        for one, other in zip(ours, theirs, strict=True):
            if call.exact:
                assert torch.equal(one.flatten(), other.flatten()), call
            else:
                torch.testing.assert_close(one, other.to(one.dtype), rtol=1e-4, atol=1e-4)
            compared += 1
    assert compared


def as_list(result):
    return list(result) if isinstance(result, (list, tuple)) else [result]
