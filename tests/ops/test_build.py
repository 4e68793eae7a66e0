"""setup.py on machines that lack something: it goes on with a warning, or ends with the reason and the remedy."""

from __future__ import annotations

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
