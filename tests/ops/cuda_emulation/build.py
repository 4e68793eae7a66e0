"""Builds CUDA sources for the CPU: the launchers of csrc/<op>/<op>_cuda.cu as a library whose kernels are emulated.

What a driver, ``<op>_driver.cpp`` beside this file, declares ``extern "C"`` is called through :class:`Emulation`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[2] / "csrc"
EMULATOR = [HERE / name for name in ("cuda_emulator.cpp", "fenced_memory.cpp", "fibres.cpp")]
# What is undefined in C++ ends in a trap, which the emulator reports; kernels round as nvcc's --fmad=false has them.
FLAGS = ["-std=c++20", "-O1", "-g0", "-w", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"]
CHECKS = [
    "-fsanitize=bounds,signed-integer-overflow,shift,integer-divide-by-zero,float-cast-overflow",
    "-fsanitize-undefined-trap-on-error",
]


def find_compiler() -> str | None:
    """The C++ compiler that setup.py takes too, or None."""
    names = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    return next((path for name in names if (path := shutil.which(name))), None)


def build(sources: Sequence[Path], folder: Path, name: str) -> Path:
    """Compiles ``sources`` (.cu files and drivers) with the emulator into ``folder``/lib``name``.so.

    Raises:
        RuntimeError: there is no compiler, or a source does not compile; with the compiler's message.
    """
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler was found; install one or set CXX")
    common = [compiler, *FLAGS, "-DMRCNN_EMULATE_CUDA", f"-I{HERE}"]
    if "clang" not in subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout:
        common.append("-fno-gnu-unique")  # kernels of one name in two libraries must not share their memory
    objects = folder / "emulator"
    objects.mkdir(parents=True, exist_ok=True)
    built = {source: objects / f"{source.stem}.o" for source in EMULATOR}
    commands = [[*common, "-c", str(source), "-o", str(path)] for source, path in built.items() if not path.exists()]
    library = folder / f"lib{name}.so"
    inputs = ["-x", "c++", *map(str, sources), "-x", "none", *map(str, built.values())]
    commands.append([*common, *CHECKS, "-shared", "-o", str(library), *inputs])
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
    return library


def sources_of(name: str) -> list[Path]:
    """The kernels of csrc/``name``, or ``name``.cu beside this file, and the driver of their launchers."""
    kernels = [*(CSRC / name).glob("*_cuda.cu"), *HERE.glob(f"{name}.cu")]
    return [*sorted(kernels), *HERE.glob(f"{name}_driver.cpp")]


class Emulation:
    """A library of emulated kernels; ``emulation.function(...)`` calls what its driver declares ``extern "C"``.

    A contiguous or channels_last tensor goes as the pointer to a copy that ends at a fence, so that an access behind it
    is seen; the copy comes back after the call. None is a null pointer, an int an ``int64_t``, a float a ``double``;
    what ctypes knows goes as it is. Functions return an int, the launchers' ``cudaError_t``.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.cuda_emulator_error.restype = ctypes.c_char_p
        self._library.fenced_copy.restype = ctypes.c_void_p
        self.set_order(reverse=os.environ.get("MRCNN_EMULATOR_ORDER") == "reverse")

    def set_order(self, *, reverse: bool) -> None:
        """Whether blocks and threads run from the last to the first; right kernels give the same either way."""
        self._library.cuda_emulator_set_order(int(reverse))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)

        def call(*arguments: Any) -> int:
            fences: dict[tuple[int, int], ctypes.c_void_p] = {}
            status = function(*(self._convert(value, fences) for value in arguments))
            overrun = [key[1] for key, copy in fences.items() if not self._bring_back(copy, key[0])]
            error = self._library.cuda_emulator_error().decode()
            self._library.cuda_emulator_clear_error()
            if error:
                raise RuntimeError(error)
            if overrun:
                raise RuntimeError(f"{name}: written beyond the {overrun[0]} bytes of a tensor")
            return status

        return call

    def _convert(self, value: Any, fences: dict[tuple[int, int], ctypes.c_void_p]) -> Any:
        if isinstance(value, (bool, int)):
            return ctypes.c_int64(value)
        if isinstance(value, float):
            return ctypes.c_double(value)
        if not isinstance(value, torch.Tensor):
            return value
        if not (value.is_contiguous() or value.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError(f"the tensor of the shape {tuple(value.shape)} has gaps in memory")
        key = (value.data_ptr(), value.numel() * value.element_size())
        if key not in fences:
            fences[key] = ctypes.c_void_p(self._library.fenced_copy(ctypes.c_void_p(key[0]), ctypes.c_size_t(key[1])))
        return fences[key]

    def _bring_back(self, copy: ctypes.c_void_p, address: int) -> bool:
        """Frees a copy. Returns whether the bytes around it are untouched."""
        return bool(self._library.fenced_return(copy, ctypes.c_void_p(address)))
