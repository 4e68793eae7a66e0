"""Builds maskrcnn_benchmark and, where a compiler is found, its kernels: maskrcnn_benchmark._C from csrc/.

Environment:
  MASKRCNN_REQUIRE_EXT=1   a missing compiler is an error instead of a warning
  FORCE_CUDA=1             build the CUDA kernels; an error where torch or nvcc cannot
  TORCH_CUDA_ARCH_LIST     for instance "8.0;9.0+PTX"; without it the GPUs of this machine, with PTX for later ones, or
                           where there are none those that torch was built for
  CXX, CUDA_HOME, MAX_JOBS as torch.utils.cpp_extension reads them; nvcc takes CXX too, unless CC names another one

Install with `pip install -e . --no-build-isolation`, so that the kernels are built against the torch that runs them.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
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


def nvcc_answer(cuda_home: str | Path, option: str) -> str:
    """What the nvcc of a CUDA toolkit prints for ``option``."""
    command = [str(Path(cuda_home) / "bin" / "nvcc"), option]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def find_cuda_home() -> str | None:
    """The folder of a CUDA toolkit with nvcc and headers, or None.

    torch takes the folder above the nvcc in PATH, which may be a link to, or a script beside, the toolkit itself.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc")
    candidates = [named] if named else [*([Path(found).resolve().parents[1]] if found else []), "/usr/local/cuda"]
    homes = [str(home) for home in candidates if shutil.which("nvcc", path=str(Path(home) / "bin"))]
    complete = [home for home in homes if Path(home, "include", "cuda_runtime.h").exists()]
    return next(iter(complete + homes), None)


def cuda_obstacle() -> str | None:
    """Why no CUDA source can be built here, or None."""
    import torch

    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    home = find_cuda_home()
    if home is None:
        return "no CUDA toolkit with nvcc was found; install one or set CUDA_HOME"
    release = re.search(r"release (\d+)", nvcc_answer(home, "--version"))
    if release and release[1] != torch.version.cuda.partition(".")[0]:
        return f"nvcc in {home} is of CUDA {release[1]}, but torch is of CUDA {torch.version.cuda}; set CUDA_HOME"
    return None


def use_cuda() -> bool:
    """Whether the CUDA sources join the build; warns where they should but cannot."""
    import torch

    reason = cuda_obstacle()
    if reason and flag("FORCE_CUDA"):
        raise SystemExit(f"FORCE_CUDA=1, but {reason}.")
    if reason and torch.version.cuda is not None:
        warnings.warn(f"The CUDA kernels are left out: {reason}. On GPUs the plain kernels run.", stacklevel=1)
    return reason is None


def choose_cuda_architectures(cuda_home: str) -> None:
    """Sets TORCH_CUDA_ARCH_LIST where it is unset: the GPUs here, else what torch was built for, plus PTX."""
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return
    import torch

    def numbers(names: list[str]) -> set[tuple[int, int]]:
        matches = (re.fullmatch(r"sm_(\d+)(\d)", name) for name in names)
        return {(int(match[1]), int(match[2])) for match in matches if match}

    known = numbers(nvcc_answer(cuda_home, "--list-gpu-code").split())
    present = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    wanted = present or numbers(torch.cuda.get_arch_list()) or {(8, 0), (9, 0)}
    # A GPU that is newer than nvcc compiles the PTX of the newest one that nvcc knows.
    chosen = sorted({max(pair for pair in known if pair <= gpu) for gpu in wanted if gpu >= min(known)})
    if not chosen:
        raise SystemExit(f"The GPUs here are too old for nvcc in {cuda_home}; set CUDA_HOME to an older CUDA toolkit.")
    os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in chosen) + "+PTX"


def sources(pattern: str, root: Path = ROOT) -> list[str]:
    """Files below csrc/, relative to ``root`` as setuptools wants them, in a fixed order."""
    return sorted(path.relative_to(root).as_posix() for path in (root / "csrc").glob(pattern))


def host_sources(root: Path = ROOT) -> list[str]:
    """Sources of the build without CUDA."""
    files = ["csrc/module.cpp", *sources("*/*.cpp", root)]
    return [path for path in files if not path.endswith("_cuda_host.cpp")]


def cuda_sources(root: Path = ROOT) -> list[str]:
    """Sources that the CUDA build has besides: kernels, and the files that launch them."""
    return sources("*/*_cuda.cu", root) + sources("*/*_cuda_host.cpp", root)


def compile_args() -> dict[str, list[str]]:
    """Flags of the C++ compiler and of nvcc, beside those that torch gives."""
    if WINDOWS:
        return {"cxx": ["/O2", "/fp:precise"], "nvcc": ["-O3", "--fmad=false"]}
    # Products and sums stay apart, so that the kernels round as the plain PyTorch ones do.
    cxx = ["-std=c++20", "-O3", "-ffp-contract=off", "-g0", "-Wall"]
    nvcc = ["-std=c++20", "-O3", "--fmad=false", "-lineinfo", "-Xcompiler", "-Wall"]
    if platform.system() == "Linux":  # at::parallel_for is a header; without OpenMP it would run on one thread
        cxx.append("-fopenmp")
    if os.environ.get("CXX") and not os.environ.get("CC"):  # torch hands CC to nvcc
        nvcc += ["-ccbin", os.environ["CXX"].split()[0]]
    return {"cxx": cxx, "nvcc": nvcc}


def link_args() -> list[str]:
    """Flags of the linker."""
    return ["-fopenmp", "-Wl,-s"] if platform.system() == "Linux" else []


def extension() -> Any:
    """The extension with its sources and flags."""
    with_cuda = use_cuda() and bool(cuda_sources())
    if with_cuda:
        home = find_cuda_home()
        os.environ["CUDA_HOME"] = home  # before the import below, which reads it
        choose_cuda_architectures(home)
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    flags = compile_args()
    return (CUDAExtension if with_cuda else CppExtension)(
        name="maskrcnn_benchmark._C",
        sources=host_sources() + (cuda_sources() if with_cuda else []),
        depends=sources("**/*.h") + sources("**/*.cuh"),
        extra_compile_args=flags if with_cuda else {"cxx": flags["cxx"]},
        extra_link_args=link_args(),
        py_limited_api=True,
    )


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


if __name__ == "__main__":  # scripts/compile_cuda.py reads the flags
    main()
