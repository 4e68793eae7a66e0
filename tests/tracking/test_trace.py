"""The trace: exact, cut back where a run goes on, and whole again after a disk was full."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.tracking.trace import Trace, read_trace
from maskrcnn_benchmark.utils.digest import digest_tensors

LOSSES = {"loss_a": 0.1, "loss_b": struct.unpack("<f", b"\x01\x00\x00\x00")[0], "loss": 3.0}


def take(trace, iteration, losses=LOSSES):
    trace.begin(iteration, 0.1 / iteration, (iteration, 0))
    trace.write([(iteration, losses)])


def iterations(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def test_numbers_read_back_to_the_last_bit(tmp_path):
    path = tmp_path / "trace.jsonl"
    trace = Trace(str(path), image_ids={0: "a.jpg", 3: 900})
    take(trace, 3)
    assert list(read_trace(str(path))) == [
        {
            "iteration": 3,
            "learning_rate": 0.1 / 3,
            "images": [900, "a.jpg"],
            "losses": {"loss_a": 0.1, "loss_b": 2.0**-149},
        }
    ]


def test_iterations_wait_until_they_are_read(tmp_path):
    path = tmp_path / "trace.jsonl"
    trace = Trace(str(path))
    for iteration in (1, 2, 3):
        trace.begin(iteration, 0.5, (0,))
    assert path.read_bytes() == b""
    trace.write([(1, LOSSES), (2, {"loss_a": float("nan")})])
    assert [line["losses"] for line in read_trace(str(path))][1] == {"loss_a": "nan"}
    assert iterations(path) == [1, 2]


def test_a_run_that_goes_on_cuts_off_what_was_after_its_checkpoint(tmp_path):
    path = tmp_path / "trace.jsonl"
    model = nn.Linear(2, 2)
    whole = Trace(str(path))
    whole.write_weights(0, model)
    for iteration in range(1, 6):
        take(whole, iteration)
        if iteration in (2, 4):
            whole.write_weights(iteration, model)
    expected = path.read_bytes()
    path.write_bytes(expected + b'{"iteration": 6, "lear')
    assert len(list(read_trace(str(path)))) == 8
    resumed = Trace(str(path), iteration=2)
    assert iterations(path) == [0, 1, 2, 2]
    assert set(resumed.digests) == {0, 2}
    for iteration in range(3, 6):
        take(resumed, iteration)
        if iteration == 4:
            resumed.write_weights(iteration, model)
    assert path.read_bytes() == expected
    Trace(str(path))
    assert path.read_bytes() == b""  # a run that begins anew


def test_what_a_full_disk_refused_is_written_later(tmp_path, caplog):
    path = tmp_path / "trace.jsonl"
    trace = Trace(str(path))
    take(trace, 1)
    before = path.read_bytes()
    path.unlink()
    path.mkdir()  # nobody can write to it, the superuser neither
    take(trace, 2)
    take(trace, 3)
    assert caplog.text.count("cannot be written") == 1
    path.rmdir()
    path.write_bytes(before + b'{"iter')  # half of an attempt
    take(trace, 4)
    assert iterations(path) == [1, 2, 3, 4]


def test_the_weights_of_an_iteration_come_once(tmp_path):
    path = tmp_path / "trace.jsonl"
    trace, model = Trace(str(path)), nn.Linear(3, 2)
    trace.write_weights(4, model)
    trace.write_weights(4, nn.Sequential(model))
    (line,) = read_trace(str(path))
    assert line == {"iteration": 4, "weights": digest_tensors(model.state_dict())}


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.tensor([0.0, 1.0]), "z": torch.zeros(0)},
        {"x": torch.tensor([-0.0, 1.0]), "y": torch.zeros(0)},
        {"x": torch.tensor([[0.0, 1.0]]), "y": torch.zeros(0)},
        {"x": torch.tensor([0.0, 1.0], dtype=torch.float64), "y": torch.zeros(0)},
        {"x": torch.tensor([0.0, 1.0])},
    ],
    ids=["name", "minus_zero", "shape", "type", "missing"],
)
def test_a_digest_tells_tensors_apart(other):
    assert digest_tensors(other) != digest_tensors({"x": torch.tensor([0.0, 1.0]), "y": torch.zeros(0)})


def test_a_digest_knows_no_layout_and_no_order():
    weight = torch.rand(4, 3, 2, 5)
    turned = weight.to(memory_format=torch.channels_last)
    bias = torch.rand(3).bfloat16()
    assert turned.stride() != weight.stride()
    assert digest_tensors({"w": weight, "b": bias}) == digest_tensors({"b": bias, "w": turned})
