"""setup.py on machines that lack something: it goes on with a warning, or ends with the reason and the remedy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import torch


@pytest.fixture
def tree(tmp_path, repository):
    """A copy of what setup.py reads, with one small source."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path / name)
    (tmp_path / "csrc").mkdir()
    shutil.copy(repository / "csrc" / "module.cpp", tmp_path / "csrc")
    package = tmp_path / "maskrcnn_benchmark"
    package.mkdir()
    shutil.copy(repository / "maskrcnn_benchmark" / "__init__.py", package)
    return tmp_path


def run_setup(tree, *arguments, **environment):
    variables = {key: value for key, value in os.environ.items() if key not in ("MASKRCNN_REQUIRE_EXT", "FORCE_CUDA")}
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=tree,
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_a_compiler_the_package_is_installed_with_one_warning(tree):
    result = run_setup(tree, "build", CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("UserWarning: The compiled kernels are left out: no C++ compiler was found") == 1
    assert (tree / "build" / "lib" / "maskrcnn_benchmark" / "__init__.py").exists()


def test_a_required_extension_needs_a_compiler(tree):
    result = run_setup(tree, "build", CXX="no-such-compiler", MASKRCNN_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert "MASKRCNN_REQUIRE_EXT=1, but the kernels cannot be built: no C++ compiler was found" in result.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_forced_cuda_needs_a_torch_with_cuda(tree):
    result = run_setup(tree, "build", FORCE_CUDA="1")
    assert result.returncode != 0
    assert "FORCE_CUDA=1, but this torch" in result.stderr
    assert "was built without CUDA" in result.stderr


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a compiler that finds the mistake")
def test_a_failed_compile_ends_with_the_reason_and_the_remedy(tree):
    (tree / "csrc" / "module.cpp").write_text("int mistake = ;\n")
    result = run_setup(tree, "build_ext", "--inplace")
    assert result.returncode != 0
    assert "int mistake = ;" in result.stdout + result.stderr
    assert "The compiled kernels were not built" in result.stderr
    assert "Try again with: python setup.py build_ext --inplace" in result.stderr
    assert not list((tree / "maskrcnn_benchmark").glob("_C*"))


@pytest.fixture
def setup(repository, monkeypatch):
    """setup.py as a module, on a machine without settings."""
    for name in ("TORCH_CUDA_ARCH_LIST", "FORCE_CUDA", "CUDA_HOME", "CUDA_PATH", "CC", "CXX"):
        monkeypatch.setenv(name, "")  # comes back after the test, whatever setup.py sets
        monkeypatch.delenv(name)
    spec = importlib.util.spec_from_file_location("setup_under_test", repository / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_toolkit(folder, codes="sm_75 sm_80 sm_90 sm_120", release="13.0", headers=True):
    """A CUDA toolkit whose nvcc answers two questions."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    answers = f"case $1 in --version) echo 'release {release}, V{release}.88';; *) printf '%s\\n' {codes};; esac"
    nvcc.write_text(f"#!/bin/sh\n{answers}\n")
    nvcc.chmod(0o755)
    if headers:
        (folder / "include").mkdir()
        (folder / "include" / "cuda_runtime.h").write_text("")
    return str(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in of nvcc is a shell script")
class TestCudaBuild:
    """What a CUDA build of torch would find, with stand-ins for torch's answers and for nvcc."""

    @pytest.mark.parametrize(
        ("gpus", "built_for", "expected"),
        [
            ([(9, 0), (8, 0), (9, 0)], "", "8.0;9.0+PTX"),
            ([], "sm_75 sm_80 sm_90 sm_120 compute_120", "7.5;8.0;9.0;12.0+PTX"),
            ([], "", "8.0;9.0+PTX"),
            ([(8, 9)], "sm_80", "8.0+PTX"),  # nvcc knows no 8.9: code for 8.0 runs there
            ([(13, 0)], "sm_80", "12.0+PTX"),
            ([(7, 0), (9, 0)], "", "9.0+PTX"),
        ],
    )
    def test_architectures(self, setup, tmp_path, monkeypatch, gpus, built_for, expected):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: gpus[index])
        monkeypatch.setattr(torch.cuda, "get_arch_list", built_for.split)
        setup.choose_cuda_architectures(make_toolkit(tmp_path / "cuda"))
        assert os.environ["TORCH_CUDA_ARCH_LIST"] == expected

    def test_the_architectures_asked_for_stay(self, setup, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6")
        setup.choose_cuda_architectures(str(tmp_path))
        assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.6"

    def test_gpus_too_old_for_nvcc(self, setup, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
        with pytest.raises(SystemExit, match=r"too old for nvcc in .*; set CUDA_HOME to an older CUDA toolkit"):
            setup.choose_cuda_architectures(make_toolkit(tmp_path / "cuda"))

    def test_the_toolkit_is_found_behind_a_link(self, setup, tmp_path, monkeypatch):
        home = make_toolkit(tmp_path / "cuda")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvcc").symlink_to(tmp_path / "cuda" / "bin" / "nvcc")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        assert setup.find_cuda_home() == home
        named = make_toolkit(tmp_path / "named", headers=False)
        monkeypatch.setenv("CUDA_HOME", named)
        assert setup.find_cuda_home() == named
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
        assert setup.find_cuda_home() is None

    def test_another_major_version_is_an_obstacle(self, setup, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", make_toolkit(tmp_path / "cuda", release="12.8"))
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        with pytest.warns(
            UserWarning, match=r"CUDA kernels are left out: nvcc in .* is of CUDA 12, but torch is of CUDA"
        ):
            assert not setup.use_cuda()
        monkeypatch.setenv("FORCE_CUDA", "1")
        with pytest.raises(SystemExit, match=r"FORCE_CUDA=1, but nvcc in .* is of CUDA 12"):
            setup.use_cuda()
        monkeypatch.setattr(torch.version, "cuda", "12.4")
        assert setup.use_cuda()

    def test_a_torch_with_cuda_warns_where_nvcc_is_missing(self, setup, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        with pytest.warns(UserWarning, match="The CUDA kernels are left out: no CUDA toolkit with nvcc was found"):
            assert not setup.use_cuda()

    def test_the_compiler_asked_for_serves_nvcc_too(self, setup, monkeypatch):
        monkeypatch.setenv("CXX", "g++-13 -pipe")
        assert setup.compile_args()["nvcc"][-2:] == ["-ccbin", "g++-13"]
        monkeypatch.setenv("CC", "gcc-13")  # which torch hands to nvcc
        assert "-ccbin" not in setup.compile_args()["nvcc"]

    def test_the_extension_holds_all_sources(self, setup, tmp_path, monkeypatch, repository):
        monkeypatch.setenv("CUDA_HOME", make_toolkit(tmp_path / "cuda"))
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        # What torch reads from the environment when the module is imported, which a CPU build does not do.
        monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", str(tmp_path / "cuda"))
        monkeypatch.chdir(repository)
        extension = setup.extension()
        files = {
            path.relative_to(repository).as_posix()
            for kind in ("cpp", "cu")
            for path in repository.glob(f"csrc/**/*.{kind}")
        }
        assert set(extension.sources) == files
        assert len(extension.sources) == len(files)
        assert extension.py_limited_api
        assert "cudart" in extension.libraries
        assert {"--fmad=false", "-std=c++20"} <= set(extension.extra_compile_args["nvcc"])
        # torch chooses no architecture where it finds the word among the flags.
        assert not any("arch" in option for option in extension.extra_compile_args["nvcc"])
