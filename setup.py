"""Builds maskrcnn_benchmark and, where a compiler is found, its kernels: maskrcnn_benchmark._C from csrc/.

Environment:
  MASKRCNN_REQUIRE_EXT=1   a missing compiler is an error instead of a warning
  FORCE_CUDA=1             build the CUDA kernels; an error where torch or nvcc cannot
  TORCH_CUDA_ARCH_LIST     for instance "8.0;9.0+PTX"; without it the GPUs of this machine, with PTX for later ones
  CXX, CUDA_HOME, MAX_JOBS as torch.utils.cpp_extension reads them

Install with `pip install -e . --no-build-isolation`, so that the kernels are built against the torch that runs them.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).resolve().parent
PLAIN_KERNELS = "The package is installed with its plain PyTorch kernels, which are slower but complete"
REBUILD = "python setup.py build_ext --inplace"
WINDOWS = platform.system() == "Windows"


def flag(name: str) -> bool:
    """Whether the environment variable ``name`` is switched on."""
    return os.environ.get(name, "0").lower() in ("1", "true", "yes", "on")


def obstacle() -> str | None:
    """Why no extension can be built here, or None."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        return f"torch cannot be imported ({error}); install torch first and use pip's --no-build-isolation"
    names = ["cl"] if WINDOWS else ["c++", "g++", "clang++"]
    compiler = os.environ.get("CXX", "").split()[:1] or names
    if not any(shutil.which(name) for name in compiler):
        return f"no C++ compiler was found (looked for {', '.join(compiler)}); install one or set CXX"
    return None


def cuda_obstacle() -> str | None:
    """Why no CUDA source can be built here, or None."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    if CUDA_HOME is None or not shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")):
        return "nvcc was not found; install the CUDA toolkit or set CUDA_HOME"
    return None


def use_cuda() -> bool:
    """Whether the CUDA sources join the build."""
    reason = cuda_obstacle()
    if reason and flag("FORCE_CUDA"):
        raise SystemExit(f"FORCE_CUDA=1, but {reason}.")
    return reason is None


def choose_cuda_architectures() -> None:
    """Sets TORCH_CUDA_ARCH_LIST where it is unset: the GPUs here, else those that torch was built for, plus PTX."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return
    import torch

    present = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    built_for = {name[3:] for name in torch.cuda.get_arch_list() if name.startswith("sm_")}
    architectures = sorted(present) or sorted((int(digits[:-1]), int(digits[-1])) for digits in built_for)
    if architectures:
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in architectures) + "+PTX"


def sources(pattern: str) -> list[str]:
    """Files below csrc/, relative to the root as setuptools wants them, in a fixed order."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob(pattern))


def extension() -> Any:
    """The extension with its sources and flags."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    # Products and sums stay apart, so that the kernels round as the plain PyTorch ones do.
    compile_args = ["/O2", "/fp:precise"] if WINDOWS else ["-O3", "-ffp-contract=off", "-g0", "-Wall"]
    link_args = []
    if platform.system() == "Linux":  # at::parallel_for is a header; without OpenMP it would run on one thread
        compile_args.append("-fopenmp")
        link_args += ["-fopenmp", "-Wl,-s"]
    host = [path for path in ["csrc/module.cpp", *sources("*/*.cpp")] if not path.endswith("_cuda_host.cpp")]
    common = {
        "name": "maskrcnn_benchmark._C",
        "depends": sources("**/*.h") + sources("**/*.cuh"),
        "extra_link_args": link_args,
        "py_limited_api": True,
    }
    device = sources("*/*_cuda.cu") + sources("*/*_cuda_host.cpp")
    if use_cuda() and device:
        choose_cuda_architectures()
        return CUDAExtension(
            sources=host + device, extra_compile_args={"cxx": compile_args, "nvcc": ["-O3", "-lineinfo"]}, **common
        )
    return CppExtension(sources=host, extra_compile_args={"cxx": compile_args}, **common)


def build_command() -> type:
    """The build_ext of torch, ending in the reason and the remedy when a source does not compile."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildKernels(BuildExtension):
        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:
                raise SystemExit(
                    f"\nThe compiled kernels were not built: {error}\n"
                    "The compiler's own message stands above. A compiler with C++20 is needed (GCC 11 or clang 14, or"
                    " later); CXX chooses another one, and MAX_JOBS=1 helps where memory is short.\n"
                    f"Try again with: {REBUILD}\n"
                    f"To install without compiled kernels, set CXX to a name that does not exist. {PLAIN_KERNELS}."
                ) from error

    return BuildKernels


def main() -> None:
    """Runs setuptools with the extension where it can be built."""
    reason = obstacle()
    if reason is None:
        setup(
            ext_modules=[extension()],
            cmdclass={"build_ext": build_command()},
            options={"bdist_wheel": {"py_limited_api": "cp310"}},
        )
        return
    if flag("MASKRCNN_REQUIRE_EXT"):
        raise SystemExit(f"MASKRCNN_REQUIRE_EXT=1, but the kernels cannot be built: {reason}.")
    warnings.warn(f"The compiled kernels are left out: {reason}. {PLAIN_KERNELS}.", stacklevel=1)
    setup()


main()
