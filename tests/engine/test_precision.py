"""Which number format and layout a run gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.engine import precision as module
from maskrcnn_benchmark.engine.precision import Precision, choose_dtype
from maskrcnn_benchmark.structures.image_list import ImageList

CPU = torch.device("cpu")


def make_cfg(dtype="float32", nhwc=False):
    return CfgNode({"DTYPE": dtype, "NHWC": nhwc})


@pytest.fixture
def messages(monkeypatch):
    found = []
    for level in ("info", "warning"):
        monkeypatch.setattr(module.logger, level, lambda text, *args, level=level: found.append((level, text % args)))
    return found


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_slow_cpu_uses_float32_and_says_so(name, monkeypatch, messages):
    monkeypatch.setattr(module, "cpu_is_fast_in", lambda dtype: False)
    assert choose_dtype(name, CPU) == torch.float32
    ((level, text),) = messages
    assert level == "warning"
    assert name in text
    assert "float32 is used" in text


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_a_fast_cpu_uses_what_was_asked_for(name, monkeypatch, messages):
    monkeypatch.setattr(module, "cpu_is_fast_in", lambda dtype: True)
    assert choose_dtype(name, CPU) == getattr(torch, name)
    assert messages == []


@pytest.mark.parametrize("name", ["float32", "fp32", "tf32"])
def test_full_precision_has_no_autocast_and_no_scaler(name):
    precision = Precision.from_config(make_cfg(name), CPU)
    with precision.autocast():
        assert not torch.is_autocast_enabled("cpu")
    assert not precision.scaler.is_enabled()


def test_the_amp_flag_wins_over_dtype(monkeypatch):
    monkeypatch.setattr(module, "cpu_is_fast_in", lambda dtype: True)
    precision = Precision.from_config(make_cfg("float32"), CPU, use_amp=True)
    assert precision.dtype == torch.float16
    assert precision.scaler.is_enabled()
    with precision.autocast():
        assert torch.get_autocast_dtype("cpu") == torch.float16


def test_bfloat16_needs_no_scaler():
    assert not Precision("cpu", torch.bfloat16).scaler.is_enabled()


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match=r"bfloat16.*'float8'"):
        choose_dtype("float8", CPU)


@pytest.mark.parametrize("asked", [True, False])
def test_nhwc_on_a_cpu_that_is_fast_in_it(messages, monkeypatch, asked):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert Precision.from_config(make_cfg(nhwc=asked), CPU).channels_last == asked
    assert not messages


def test_nhwc_on_another_cpu_is_refused_with_a_word(messages, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not Precision.from_config(make_cfg(nhwc=True), CPU).channels_last
    assert [level for level, _ in messages] == ["info"]
    assert "NCHW" in messages[0][1]


def test_channels_last_reaches_weights_and_images():
    precision = Precision("cpu", channels_last=True)
    convolution = precision.place_model(nn.Conv2d(3, 4, 3), CPU)
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    images = precision.place_images(ImageList(torch.rand(2, 3, 5, 6), [(5, 6), (4, 6)]), CPU)
    assert images.tensors.is_contiguous(memory_format=torch.channels_last)
    assert images.image_sizes == [(5, 6), (4, 6)]


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "expected"), [("tf32", "tf32"), ("float32", "ieee")])
def test_tf32_is_a_choice_on_a_gpu(name, expected):
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    try:
        assert choose_dtype(name, torch.device("cuda")) == torch.float32
        assert torch.backends.cuda.matmul.fp32_precision == expected
        assert torch.backends.cudnn.conv.fp32_precision == expected
    finally:
        torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = before
