"""The other implementations that the benchmarks run beside ours: where they are looked for, how they load.

A peer is whatever can be imported, or lies in one of the folders that MASKRCNN_PEERS names (separated as in PATH), such
as that of `pip install --no-deps --target FOLDER torchvision==0.28.0`. One that is missing or does not load is named in
the results with the reason; it never ends a benchmark.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch

FOLDERS = "MASKRCNN_PEERS"
# Functions whose answer is needed while the library loads or asks for devices; the others may not be called.
_HARMLESS = re.compile(r"^(__)?cuda|device_count")


class PeerAbsent(ImportError):
    """A peer cannot be used here; the text says why."""


def load_torchvision() -> ModuleType:
    """Load torchvision with its operators, also where its wheel was built for CUDA and this torch was not.

    Raises:
        PeerAbsent: where it is missing, or was built for another torch.
    """
    _add_folders()
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise PeerAbsent("torchvision is not installed")
    if torch.version.cuda is None and "torchvision" not in sys.modules:
        # Before the first import: one that has failed half-way cannot be repeated.
        library = Path(spec.origin).parent / "_C.so"
        if library.exists():
            _stand_in_for_cuda(library)
    module = _import("torchvision")
    if not module.extension._has_ops():
        raise PeerAbsent(
            f"torchvision {module.__version__} does not load its operators beside torch {torch.__version__}"
        )
    return module


def load_detectron2() -> ModuleType:
    """Load detectron2, also where its own operators were not built: Mask R-CNN on a CPU takes those of torchvision."""
    load_torchvision()
    module = _import("detectron2")
    try:
        _import("detectron2._C")
    except PeerAbsent:
        module._C = sys.modules["detectron2._C"] = ModuleType("detectron2._C")
    pillow = _import("PIL.Image")
    pillow.LINEAR = pillow.BILINEAR  # its older releases use a name that Pillow has dropped
    _import("detectron2.modeling")
    return module


def load_mmcv() -> ModuleType:
    """Load mmcv with its operators; raises PeerAbsent without them."""
    module = _import("mmcv")
    _import("mmcv.ops")
    return module


def load_pycocotools() -> ModuleType:
    """Load pycocotools with its mask module."""
    _import("pycocotools.mask")
    return _import("pycocotools")


def load_mmdet() -> ModuleType:
    """Load mmdetection, which needs the operators of mmcv."""
    load_mmcv()
    return _import("mmdet")


def load_faster_coco_eval() -> ModuleType:
    """Load faster-coco-eval, the evaluation in C++."""
    return _import("faster_coco_eval")


LOADERS: dict[str, Callable[[], ModuleType]] = {
    "torchvision": load_torchvision,
    "detectron2": load_detectron2,
    "mmcv": load_mmcv,
    "mmdetection": load_mmdet,
    "pycocotools": load_pycocotools,
    "faster-coco-eval": load_faster_coco_eval,
}


def find_peers(paths: Mapping[str, str] | None = None, wanted: Sequence[str] | None = None) -> dict[str, str]:
    """Loads peers and says what came of each.

    Args:
        paths: name to a checkout of that peer, which goes before whatever is installed.
        wanted: names of `LOADERS`; None for all of them.

    Returns:
        name to its version, or to "absent: " and the reason.

    Raises:
        ValueError: on a name that is not known.
    """
    unknown = sorted({*(paths or {}), *(wanted or ())} - set(LOADERS))
    if unknown:
        raise ValueError(f"no peer is called {', '.join(unknown)}; there are {', '.join(LOADERS)}")
    for path in (paths or {}).values():
        sys.path.insert(0, str(Path(path).resolve()))
    found = {}
    for name in LOADERS if wanted is None else wanted:
        try:
            module = LOADERS[name]()
        except PeerAbsent as error:
            found[name] = f"absent: {error}"
        else:
            found[name] = getattr(module, "__version__", None) or importlib.metadata.version(name)
    return found


def _add_folders() -> None:
    # At the end: nothing in such a folder may take the place of what is installed.
    for folder in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        if folder not in sys.path:
            sys.path.append(folder)


def _import(name: str) -> ModuleType:
    _add_folders()
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        raise PeerAbsent(f"{name} is not installed" if missing else f"{name} does not load: {reason}") from error


def _stand_in_for_cuda(library: Path) -> None:
    """Loads empty libraries in place of the CUDA ones that ``library`` needs and that a CPU build of torch lacks.

    Its operators for the CPU call nothing in them. Where no compiler or nm is found nothing is done, and the import
    says what is missing.
    """
    try:
        listed = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
        with tempfile.TemporaryDirectory() as folder:
            for soname, symbols in _cuda_symbols(listed.stdout).items():
                ctypes.CDLL(str(_build_stand_in(Path(folder), soname, symbols)), ctypes.RTLD_GLOBAL)
    except (OSError, subprocess.CalledProcessError):
        return


def _cuda_symbols(listing: str) -> dict[str, list[str]]:
    """Undefined symbols of CUDA in the output of nm, by the library that would define them."""
    found: dict[str, list[str]] = {"libc10_cuda.so": [], "libtorch_cuda.so": []}
    for symbol in (line.split()[-1] for line in listing.splitlines() if line.strip()):
        name, _, version = symbol.partition("@")
        if re.match(r"(__)?cuda", name):
            found.setdefault(version.lstrip("@") or "libcudart.so", []).append(name)
        elif re.match(r"_ZNK?3c104cuda", name):
            found["libc10_cuda.so"].append(name)
        elif re.match(r"_ZNK?2at4cuda", name):
            found["libtorch_cuda.so"].append(name)
    return found


def _build_stand_in(folder: Path, soname: str, symbols: list[str]) -> Path:
    """A library of that name: calls of harmless functions give 0, those of others end the process."""
    lines = ["void abort(void);"]
    for name in symbols:
        if name.endswith("9allocatorE"):  # the one variable
            lines.append(f"void *{name}[16];")
        else:
            body = "return 0;" if _HARMLESS.search(name) else "abort();"
            lines.append(f"void *{name}(void) {{ {body} }}")
    source, script, built = folder / "stand_in.c", folder / "versions", folder / soname
    source.write_text("\n".join(lines) + "\n")
    script.write_text(f"{soname} {{ global: *; }};\n")
    compiler = os.environ.get("CC", "cc").split()
    flags = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{soname}", f"-Wl,--version-script,{script}"]
    subprocess.run([*compiler, *flags, str(source), "-o", str(built)], capture_output=True, check=True)
    return built
