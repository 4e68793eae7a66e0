"""The op library: which kernels are live, what happens without the compiled ones, and the parts every op has."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark import ops

HIDE = "import sys; sys.modules['maskrcnn_benchmark._C'] = None; "


def run_python(repository, code, hide=True, **environment):
    variables = {key: value for key, value in os.environ.items() if key != "MASKRCNN_REQUIRE_EXT"}
    return subprocess.run(
        [sys.executable, "-c", (HIDE if hide else "") + code],
        cwd=repository,
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_op_has_a_compiled_cpu_kernel(without_extension):
    info = ops.backend_info()
    kernels = {name: kernels["cpu"] for name, kernels in info["kernels"].items()}
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        assert {kernels.pop("winograd_conv"), kernels.pop("winograd_conv_backward")} == {"plain"}
    assert kernels == dict.fromkeys(kernels, "plain" if without_extension else "compiled")
    assert (info["extension"] is None) == without_extension == (info["missing_reason"] is not None)


def test_every_op_has_a_plain_and_a_fake_kernel():
    for name in ops.backend_info()["kernels"]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"mrcnn::{name}", "CompositeExplicitAutograd"), name
        assert torch._library.simple_registry.singleton.find(f"mrcnn::{name}").fake_impl.kernel is not None, name


def test_every_op_has_a_benchmark(monkeypatch):
    monkeypatch.setenv("MASKRCNN_REQUIRE_EXT", "0")  # the benchmark asks for the extension unless told otherwise
    benchmark = importlib.import_module("benchmarks.ops")
    assert sorted(name for names in benchmark.CALLS for name in names) == sorted(ops.backend_info()["kernels"])


def test_a_missing_extension_warns_once(repository):
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from maskrcnn_benchmark import ops\n"
        "import importlib; importlib.import_module('maskrcnn_benchmark.ops')\n"
        "import torch; kept = ops.nms(torch.tensor([[0., 0, 9, 9], [0, 0, 9, 9]]), torch.tensor([.5, .9]), 0.5)\n"
        "assert kept.tolist() == [1], kept\n"
    )
    result = run_python(repository, code)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("RuntimeWarning: The compiled kernels (maskrcnn_benchmark._C) are not available") == 1
    assert "python setup.py build_ext --inplace" in result.stderr


def test_a_missing_extension_can_be_an_error(repository):
    result = run_python(repository, "import maskrcnn_benchmark.ops", MASKRCNN_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert "ImportError: The compiled kernels (maskrcnn_benchmark._C) are not available" in result.stderr
    assert "or unset MASKRCNN_REQUIRE_EXT" in result.stderr


def test_a_library_of_other_sources_is_an_error(repository, without_extension):
    if without_extension:
        pytest.skip("needs the compiled kernels")
    code = (
        "import torch; define = torch.library.Library.define\n"
        "torch.library.Library.define = lambda self, schema, *rest, **named: define(\n"
        "    self, schema.replace('int sampling_ratio', 'float sampling_ratio'), *rest, **named)\n"
        "import maskrcnn_benchmark.ops\n"
    )
    result = run_python(repository, code, hide=False)
    assert result.returncode != 0
    assert "was built from other sources than this package (op 'roi_align')" in result.stderr
    assert "build it again with `python setup.py build_ext --inplace`" in result.stderr


@pytest.mark.slow
def test_all_op_tests_pass_without_the_extension(repository, without_extension):
    if without_extension:
        pytest.skip("this is that run")
    environment = os.environ | {"MASKRCNN_TESTS_WITHOUT_EXTENSION": "1"}
    environment.pop("MASKRCNN_REQUIRE_EXT", None)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "tests/ops"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
