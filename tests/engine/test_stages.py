"""Recording the stages of a step, percentiles, peak memory."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn_benchmark.engine.measure import PeakMemory, summarize_times
from maskrcnn_benchmark.engine.stages import FlopClock, StageRecorder, mean_stages


class Small(nn.Module):
    """Two stages whose operations are counted by hand."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Linear(8, 5, bias=False)
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        return self.second(self.first(x).mean((2, 3)))


def test_flops_of_a_network_counted_by_hand():
    network, counter = Small(), FlopCounterMode(display=False)
    recorder = StageRecorder(FlopClock(counter))
    recorder.watch_module(network.first, "first")
    recorder.watch_module(network.second, "second")
    with counter:
        recorder.begin_step()
        network(torch.ones(2, 3, 10, 12)).sum().backward()
        recorder.end_step()
    recorder.detach()
    convolution = 2 * (2 * 8 * 10 * 12) * (3 * 9)  # two for each product and sum, outputs x inputs of each
    linear = 2 * 2 * 8 * 5
    # Backward: the linear layer's weight alone, as nothing before it needs a gradient.
    assert recorder.read() == [{"first": convolution, "second": linear, "other": linear}]


class Ticks:
    """A clock that advances by one at each look."""

    def __init__(self):
        self.now = 0

    def mark(self):
        self.now += 1
        return self.now

    def between(self, begin, end):
        return end - begin


class Holder:
    def double(self, x):
        return 2 * x


def test_stages_add_up_and_leave_no_trace():
    network, holder, seen = Small(), Holder(), []
    recorder = StageRecorder(Ticks())
    optimizer = torch.optim.SGD(network.second.parameters(), lr=0.1)
    recorder.watch_module(network.first, "conv")
    recorder.watch_call(holder, "double", "call", observe=seen.append)
    recorder.watch_backward(network, optimizer)

    def step():
        recorder.begin_step()
        with recorder.stage("call"):
            pass
        assert holder.double(4) == 8
        network(torch.ones(1, 3, 4, 4)).sum().backward()
        optimizer.step()
        recorder.end_step()

    step()
    step()
    rows = recorder.read()
    # a tick a mark: 12 marks, so a step is 11 long
    assert rows[0] == rows[1] == {"call": 2, "conv": 1, "backward": 1, "optimizer": 1, "other": 6}
    assert mean_stages(rows) == rows[0]
    assert seen == [8, 8]
    recorder.detach()
    assert vars(holder) == {}
    marks = recorder.clock.now
    holder.double(1)
    network(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert recorder.clock.now == marks


def test_an_update_that_does_not_come_ends_with_the_step():
    network, recorder = Small(), StageRecorder(Ticks())
    optimizer = torch.optim.SGD(network.second.parameters(), lr=0.1)
    recorder.watch_backward(network, optimizer)
    recorder.begin_step()
    network(torch.ones(1, 3, 4, 4)).sum().backward()
    recorder.end_step()
    assert set(recorder.read()[0]) == {"backward", "other"}


def test_percentiles_are_numpys():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 37).tolist()
    figures = summarize_times(values)
    ordered = sorted(values)
    assert figures["mean"] == pytest.approx(sum(values) / 37)
    assert figures["p50"] == ordered[18]
    assert ordered[34] < figures["p95"] < ordered[35]
    assert ordered[35] < figures["p99"] < ordered[36]


@pytest.mark.skipif(sys.platform != "linux", reason="the mark can be reset on Linux alone")
def test_peak_memory_forgets_earlier_peaks():
    first = PeakMemory(torch.device("cpu"))
    before = first.read()
    with mmap.mmap(-1, 60 << 20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    peak = first.read()
    assert peak - before > 50
    assert PeakMemory(torch.device("cpu")).read() < peak - 50
