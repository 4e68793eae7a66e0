"""Peaks of processors, and the share of them that is used."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.utils.flops import model_flops_utilization, peak_tflops


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H200", "bfloat16", 989.4),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7),
        ("NVIDIA H100 PCIe", "float16", 756.0),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5),
        ("NVIDIA A10", "float16", None),
        ("Tesla V100-SXM2-16GB", "float16", 125.0),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA L4", "float16", 121.0),
        ("AMD EPYC", "float32", None),
    ],
)
def test_peaks(name, dtype, peak):
    assert peak_tflops(name, dtype) == peak


def test_utilization_of_the_published_figures():
    # 187.2 images/s of 1.549 TFLOP are 29 % of an H100
    assert model_flops_utilization(187.2 * 1.549e12, 1.0, 989.4) == pytest.approx(0.293, abs=0.001)
