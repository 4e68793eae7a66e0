"""Imports torchvision's published wheel beside a PyTorch without CUDA.

The wheel on PyPI is built for CUDA: its library of ops names three of CUDA's libraries, which a CPU build of PyTorch has
not, and so does not load, though its CPU kernels need none of them. Empty libraries of the same names, made here with the
machine's C compiler, let it load. What they stand in for is reached with tensors on a GPU alone, of which there are none.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_CUDA_SYMBOL = re.compile(r"\b(_ZNK?3c104cuda\w+|_ZN2at4cuda\w+|(?:__)?cuda[A-Z]\w+)")


def import_torchvision() -> Any:
    """The module torchvision with its ops.

    Raises:
        ImportError: it is not installed, or its library cannot be loaded; the message says why.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision is not installed (pip install --no-deps torchvision pillow)")
    library = Path(next(iter(spec.submodule_search_locations))) / "_C.so"
    if torch.version.cuda is None and library.exists():
        _load_stand_ins(library)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:  # an op that is missing
            raise ImportError(f"torchvision does not fit this PyTorch: {error}") from error


def _load_stand_ins(library: Path) -> None:
    """Make and load an empty library for each that ``library`` needs and the machine has not."""
    try:
        missing = [name for name in _NEEDED.findall(_output("readelf", "-d", str(library))) if not _loads(name)]
        if not missing:
            return
        symbols = sorted(set(_CUDA_SYMBOL.findall(_output("nm", "-D", "--undefined-only", str(library)))))
        with tempfile.TemporaryDirectory() as folder:
            for name in missing:
                # All symbols stand in the first; the others need only be there.
                source = "".join(f"long {symbol}(void) {{ return 0; }}\n" for symbol in symbols * (name == missing[0]))
                path = Path(folder) / name
                command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(path)]
                subprocess.run(command, input=source, text=True, capture_output=True, check=True)
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImportError(
            f"torchvision's wheel is built for CUDA and stand-ins for its libraries cannot be made: {error}; "
            "install a C compiler and binutils, or torchvision for the CPU"
        ) from error


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _output(*command: str) -> str:
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout
