"""The op tests run with the compiled kernels, and once more without them (test_library.py starts that run)."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.ops.cuda_emulation.build import Emulation, build, find_compiler, sources_of
from tests.ops.inputs import RoiCase
from tests.ops.on_gpu import to_gpu

WITHOUT_EXTENSION = os.environ.get("MASKRCNN_TESTS_WITHOUT_EXTENSION") == "1"

if WITHOUT_EXTENSION:
    sys.modules["maskrcnn_benchmark._C"] = None  # makes its import fail


@pytest.fixture(scope="session")
def without_extension() -> bool:
    """Whether this run hides the compiled kernels."""
    return WITHOUT_EXTENSION


@pytest.fixture
def threads():
    """``threads(n)`` sets the number of threads; the old one comes back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory) -> Callable[[str], Emulation]:
    """``emulated(op)``: the CUDA kernels of csrc/``op``, run on the CPU (tests/ops/cuda_emulation); built once."""
    if find_compiler() is None or sys.platform == "win32":
        pytest.skip("needs a C++ compiler on a POSIX system, to emulate CUDA kernels")
    folder = tmp_path_factory.mktemp("cuda_emulation")

    @functools.cache
    def emulate(op: str) -> Emulation | RuntimeError:
        try:
            return Emulation(build(sources_of(op), folder, op))
        except RuntimeError as error:  # is kept too: not every test shall wait for it
            return error

    def get(op: str) -> Emulation:
        emulation = emulate(op)
        if isinstance(emulation, RuntimeError):
            pytest.fail(str(emulation), pytrace=False)
        return emulation

    return get


class ConvThenPool(nn.Module):
    """A convolution and the op under test, ``pool(features, rois)``."""

    def __init__(self, pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pool

    def forward(self, image: Tensor, rois: Tensor) -> Tensor:
        return self.pool(self.conv(image), rois)


@pytest.fixture
def check_compile() -> Callable[..., None]:
    """``check_compile(pool)``: compiled without graph breaks it gives the same outputs and gradients, for two sizes."""

    def check(pool: Callable[[Tensor, Tensor], Tensor], layout: torch.memory_format = torch.contiguous_format) -> None:
        model = ConvThenPool(pool).to(memory_format=layout)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
        for height, num_rois in ((16, 6), (24, 9)):
            image = torch.randn(2, 3, height, 20).contiguous(memory_format=layout)
            rois = RoiCase("compile", "proposals", num_rois=num_rois, image_size=(64, 80)).make_rois()
            results = []
            for function in (model, compiled):
                model.zero_grad()
                output = function(image, rois)
                output.square().sum().backward()
                results.append((output.detach(), model.conv.weight.grad.clone()))
            torch.testing.assert_close(results[0], results[1])

    return check


@pytest.fixture
def check_export() -> Callable[..., None]:
    """``check_export(pool)``: exported with free sizes it gives the same for other ones."""

    def check(pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        model = ConvThenPool(pool).eval()
        rois = RoiCase("export", "proposals", num_rois=6, image_size=(64, 80)).make_rois()
        free = torch.export.Dim.AUTO
        program = torch.export.export(
            model, (torch.randn(2, 3, 16, 20), rois), dynamic_shapes=({2: free, 3: free}, {0: free})
        )
        image, more = torch.randn(2, 3, 24, 28), torch.cat([rois, rois])
        torch.testing.assert_close(program.module()(image, more), model(image, more))

    return check


@pytest.fixture
def device(without_extension) -> torch.device:
    """The GPU, with the compiled kernels."""
    if without_extension:
        pytest.skip("needs the compiled kernels")
    return torch.device("cuda")


@pytest.fixture
def on_device(device) -> Callable[[Sequence[Any]], list[Any]]:
    """Copies the tensors of a call to the GPU."""
    return to_gpu
