"""The CUDA sources compile and load, also where there is no GPU (scripts/compile_cuda.py); needs nvcc."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.ops.cuda_emulation.build import HERE

REPOSITORY = Path(__file__).resolve().parents[2]
INCLUDE = '#include "../common/cuda.cuh"\n'
BROKEN = {
    "syntax": "__global__ void kernel(int* values) { *values = ; }",
    "warning": "__global__ void kernel(int* values) { int never_used; *values = 1; }",
    "host_warning": "__global__ void kernel(int* values) { *values = 1; }\nstatic void never_called() {}",
    "sm_80_only": "#if __CUDA_ARCH__ == 900\n#error no kernel for 900\n#endif\n__global__ void kernel() {}",
    "sm_90_only": "#if __CUDA_ARCH__ == 800\n#error no kernel for 800\n#endif\n__global__ void kernel() {}",
    "torch": "#include <ATen/core/Tensor.h>\n__global__ void kernel() {}",
}


def load_tool():
    path = REPOSITORY / "scripts" / "compile_cuda.py"
    spec = importlib.util.spec_from_file_location("compile_cuda", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()
CUDA_HOME = TOOL.load_setup().find_cuda_home()
needs_nvcc = pytest.mark.skipif(
    CUDA_HOME is None or sys.platform != "linux", reason="nvcc: needs a CUDA toolkit (in PATH, or below CUDA_HOME)"
)


@pytest.fixture(scope="module")
def build():
    return TOOL.Build(TOOL.load_setup(), Path(CUDA_HOME), REPOSITORY / "build" / "cuda", REPOSITORY)


@pytest.fixture(scope="module")
def logs(build):
    return build.compile_all(jobs=os.cpu_count() or 1)


@needs_nvcc
def test_every_cuda_source_compiles_for_both_architectures(logs):
    assert sorted(logs) == sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("csrc/*/*.cu"))
    TOOL.check_targets(logs)
    for source, log in logs.items():
        for architecture in (80, 90):
            assert f"for 'sm_{architecture}'" in log, source


@needs_nvcc
def test_the_extension_links_and_loads_with_a_cuda_kernel_for_each_op(build, logs, monkeypatch):
    library = build.link()
    ops = TOOL.check_kernels(library)
    assert {"roi_align", "roi_align_backward", "batched_nms", "match_boxes", "polygon_mask_targets"} <= set(ops)
    monkeypatch.setattr(TOOL, "CPU_ONLY", {})
    with pytest.raises(TOOL.BrokenBuildError, match="paste_masks has no compiled kernel for cuda"):
        TOOL.check_kernels(library)


@needs_nvcc
def test_what_kernels_may_use_is_known_to_nvcc_too(build, tmp_path):
    log = build.compile(HERE / "examples.cu", tmp_path / "examples.o", build.nvcc_command())
    TOOL.check_targets({"examples.cu": log})


@needs_nvcc
def test_a_broken_kernel_is_found(tmp_path):
    for name, text in BROKEN.items():
        folder = tmp_path / "csrc" / name
        folder.mkdir(parents=True)
        (folder / f"{name}_cuda.cu").write_text(INCLUDE + text)
    common = tmp_path / "csrc" / "common"
    common.mkdir()
    for name in ("cuda.cuh", "half.h", "simd.h"):
        (common / name).write_text((REPOSITORY / "csrc" / "common" / name).read_text())
    (tmp_path / "csrc" / "module.cpp").write_text("")
    build = TOOL.Build(TOOL.load_setup(), Path(CUDA_HOME), tmp_path / "build", tmp_path)
    with pytest.raises(TOOL.BrokenBuildError) as caught:
        build.compile_all(jobs=2)
    for name in BROKEN:
        assert f"compiling {tmp_path}/csrc/{name}/{name}_cuda.cu failed" in str(caught.value)
    for text in ("expected an expression", "never_used", "never_called", "no kernel for 900", "no kernel for 800"):
        assert text in str(caught.value)


def test_kernels_for_one_architecture_only_are_refused():
    with pytest.raises(TOOL.BrokenBuildError, match=r"x.cu holds kernels for \[80\], not for \[80, 90\]"):
        TOOL.check_targets({"x.cu": "Compiling entry function 'kernel' for 'sm_80'"})


def test_without_nvcc_it_says_so(monkeypatch):
    setup = TOOL.load_setup()
    monkeypatch.setattr(setup, "find_cuda_home", lambda: None)
    monkeypatch.setattr(TOOL, "load_setup", lambda: setup)
    monkeypatch.setattr(sys, "argv", ["compile_cuda.py"])
    with pytest.raises(SystemExit, match="The CUDA sources are not checked: that needs Linux and nvcc"):
        TOOL.main()
