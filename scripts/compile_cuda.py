"""Compiles the CUDA extension where there is no GPU, and loads it: what breaks a kernel is found without one.

    python scripts/compile_cuda.py [--jobs N] [--resources]

Every .cu below csrc/ is compiled for sm_80 and sm_90 with warnings as errors, every C++ source against torch's headers;
all is linked and imported in a fresh Python, which must find a CUDA kernel for each op. A CPU build of torch will do:
what it lacks, one generated header and libc10_cuda, is made here. What has not changed is not compiled again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

ROOT = Path(__file__).resolve().parent.parent
TORCH = Path(torch.__file__).resolve().parent
ARCHITECTURES = (80, 90)
# Ops without a CUDA kernel, and why.
CPU_ONLY = {
    "match_detections": "detections are evaluated on the CPU, where they are read and written",
    "normalize_images": "on CUDA devices the plain one is a few launches over memory that is there already",
    "paste_masks": "masks are pasted into the images on the CPU, where they are needed",
    "paste_masks_rle": "masks are encoded on the CPU, where they are written",
    "rasterize_polygons": "as match_detections",
    "rle_areas": "as match_detections",
    "rle_overlaps": "as match_detections",
    "winograd_conv": "a GPU's own library computes convolutions",
    "winograd_conv_backward": "as winograd_conv",
}
LOAD = """
import importlib.util, json, sys
import torch
spec = importlib.util.spec_from_file_location("maskrcnn_benchmark._C", sys.argv[1])
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from maskrcnn_benchmark import ops
print(json.dumps(ops.backend_info()))
"""


class BrokenBuildError(Exception):
    """A source does not compile, link or register; the message says which and why."""


def load_setup() -> ModuleType:
    """setup.py, for its flags and its lists of sources."""
    spec = importlib.util.spec_from_file_location("maskrcnn_benchmark_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: list[str], what: str) -> str:
    """Runs a command and returns all that it printed.

    Raises:
        BrokenBuildError: it failed.
    """
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        raise BrokenBuildError(f"{what} failed:\n{' '.join(command)}\n{result.stdout}")
    return result.stdout


def with_headers(source: Path) -> list[Path]:
    """A source and the headers of this repository that it includes, those by way of others too."""
    found = [source]
    for path in found:  # grows
        included = ((path.parent / name).resolve() for name in re.findall(r'#include "(.*?)"', path.read_text()))
        found += [header for header in dict.fromkeys(included) if header.exists() and header not in found]
    return found


@dataclass
class Build:
    """One build: setup.py, the toolkit, the folder of what it makes, and the one that holds csrc/."""

    setup: ModuleType
    cuda_home: Path
    folder: Path
    root: Path

    def __post_init__(self) -> None:
        self.cxx = (os.environ.get("CXX") or "c++").split()[0]
        self.flags = self.setup.compile_args()
        self.sources = self.setup.host_sources(self.root) + self.setup.cuda_sources(self.root)
        versions = [run([tool, "--version"], tool) for tool in (self.cxx, str(self.cuda_home / "bin" / "nvcc"))]
        self.surroundings = [torch.__version__, *versions]
        shim = self.folder / "shim" / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h"
        shim.parent.mkdir(parents=True, exist_ok=True)
        shim.write_text("#pragma once\n#define C10_CUDA_BUILD_SHARED_LIBS\n")

    def nvcc_command(self) -> list[str]:
        """The command of nvcc with the flags of the real build, and warnings as errors."""
        targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
        strict = ["-Werror", "all-warnings", "-Xcompiler", "-Werror", "-Xptxas", "-v"]
        nvcc = str(self.cuda_home / "bin" / "nvcc")
        return [nvcc, *COMMON_NVCC_FLAGS, "-Xcompiler", "-fPIC", *self.flags["nvcc"], *strict, *targets]

    def cxx_command(self) -> list[str]:
        """The command of the C++ compiler with the flags of the real build, but nothing is optimised."""
        system = [TORCH / "include", self.cuda_home / "include", sysconfig.get_path("include")]
        if not (TORCH / "include" / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h").exists():
            system.insert(0, self.folder / "shim")
        includes = [part for folder in system for part in ("-isystem", str(folder))]
        defines = ["-DPy_LIMITED_API=0x030A0000", "-DTORCH_EXTENSION_NAME=_C", "-DTORCH_API_INCLUDE_EXTENSION_H"]
        return [self.cxx, *self.flags["cxx"], "-O0", "-Werror", "-fPIC", *defines, *includes]

    def compile(self, source: Path, target: Path, command: list[str]) -> str:
        """Compiles one file unless it, and what it depends on, is as it was. Returns what the compiler printed."""
        parts = [*command, *self.surroundings, *(path.read_text() for path in with_headers(source))]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        stamp = target.with_name(target.name + ".json")
        if target.exists() and stamp.exists():
            known = json.loads(stamp.read_text())
            if known["key"] == key:
                return known["log"]
        target.parent.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        log = run([*command, "-c", str(source), "-o", str(partial)], f"compiling {source}")
        partial.replace(target)
        stamp.write_text(json.dumps({"key": key, "log": log}))
        return log

    def object_of(self, source: str) -> Path:
        """Where the object of a source lies: setup.py has left those of the CPU, unless something is newer."""
        place = f"build/temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        built = (self.root / place / source).with_suffix(".o")
        inputs = [ROOT / "setup.py", TORCH / "version.py", *with_headers(self.root / source)]
        usable = source in self.setup.host_sources(self.root) and built.exists()
        if usable and built.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
            return built
        return self.folder / "objects" / f"{source}.o"

    def compile_all(self, jobs: int) -> dict[str, str]:
        """Compiles all sources, ``jobs`` at a time. Returns what nvcc printed for each .cu.

        Raises:
            BrokenBuildError: some do not compile; it names all of them.
        """
        objects = {source: self.object_of(source) for source in self.sources}
        # The longest first, so that none is left over at the end.
        stale = [source for source in reversed(self.sources) if objects[source].is_relative_to(self.folder)]

        def compile_one(source: str) -> str:
            command = self.nvcc_command() if source.endswith(".cu") else self.cxx_command()
            return self.compile(self.root / source, objects[source], command)

        with ThreadPoolExecutor(jobs) as pool:
            running = {source: pool.submit(compile_one, source) for source in stale}
        errors = [str(error) for future in running.values() if (error := future.exception()) is not None]
        if errors:
            raise BrokenBuildError("\n".join(errors))
        return {source: running[source].result() for source in stale if source.endswith(".cu")}

    def libraries(self, objects: list[str]) -> list[str]:
        """Linker arguments for torch and CUDA, with a stand-in for libc10_cuda where this torch has none."""
        folders = [TORCH / "lib", next(path for name in ("lib64", "lib") if (path := self.cuda_home / name).is_dir())]
        if not list((TORCH / "lib").glob("libc10_cuda.*")):
            symbols = set(re.findall(r"\bU (_Z(?:T[ISV])?NK?3c104cuda\w+)", run(["nm", "-u", *objects], "nm")))
            stub = self.folder / "stub"
            stub.mkdir(exist_ok=True)
            code = "".join(f"void {symbol}(void) {{ __builtin_trap(); }}\n" for symbol in sorted(symbols))
            (stub / "c10_cuda.c").write_text(code)
            library = ["-o", str(stub / "libc10_cuda.so"), "-Wl,-soname,libc10_cuda.so"]
            run([self.cxx, "-x", "c", "-w", "-shared", "-fPIC", str(stub / "c10_cuda.c"), *library], "the stand-in")
            folders.append(stub)
        search = [part for folder in folders for part in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
        return [*search, *(f"-l{name}" for name in ("c10", "torch_cpu", "torch", "c10_cuda", "cudart"))]

    def link(self) -> Path:
        """Links all objects as the extension."""
        objects = [str(self.object_of(source)) for source in self.sources]
        library = self.folder / "_C.abi3.so"
        arguments = [*self.libraries(objects), *self.setup.link_args(), "-o", str(library)]
        run([self.cxx, "-shared", *objects, *arguments], "linking the extension")
        return library


def check_targets(logs: dict[str, str]) -> None:
    """Raises BrokenBuildError where a .cu holds no kernel for one of the architectures."""
    for source, log in logs.items():
        found = {int(number) for number in re.findall(r"for 'sm_(\d+)'", log)}
        if found != set(ARCHITECTURES):
            raise BrokenBuildError(f"{source} holds kernels for {sorted(found)}, not for {list(ARCHITECTURES)}.")


def check_kernels(library: Path) -> list[str]:
    """Imports the extension in a fresh Python. Returns the ops that have a CUDA kernel.

    Raises:
        BrokenBuildError: it does not load, or an op has no kernel for the CPU or for CUDA.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MASKRCNN_REQUIRE_EXT": "1"}
    command = [sys.executable, "-c", LOAD, str(library)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BrokenBuildError(f"{library} does not load:\n{result.stderr}")
    kernels = json.loads(result.stdout.splitlines()[-1])["kernels"]
    missing = [
        f"{name} has no compiled kernel for {device}"
        for name, live in kernels.items()
        for device in ("cpu", "cuda")
        if live[device] != "compiled" and not (device == "cuda" and name in CPU_ONLY)
    ]
    if missing:
        raise BrokenBuildError(f"{library}: {'; '.join(missing)}.")
    return [name for name, live in kernels.items() if live["cuda"] == "compiled"]


def print_resources(logs: dict[str, str]) -> None:
    """Prints what ptxas says of each kernel: the registers of a thread, and what did not fit into them."""
    text = "\n".join(f"{source}\n{log}" for source, log in logs.items())
    if demangle := shutil.which("c++filt"):
        text = subprocess.run([demangle], input=text, capture_output=True, text=True, check=True).stdout
    pattern = r"entry function '(.*?)' for '(sm_\d+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    for name, architecture, spilled, registers in re.findall(pattern, text, re.DOTALL):
        print(f"{architecture}  {registers:>3} registers  {spilled:>4} bytes spilled  {name}")


def build_all(options: argparse.Namespace) -> None:
    """Compiles, links and loads.

    Raises:
        BrokenBuildError: something is wrong with a source.
    """
    setup = load_setup()
    home = setup.find_cuda_home()
    if home is None or sys.platform != "linux":
        raise SystemExit("The CUDA sources are not checked: that needs Linux and nvcc (in PATH, or below CUDA_HOME).")
    build = Build(setup, Path(home), ROOT / "build" / "cuda", ROOT)
    logs = build.compile_all(options.jobs)
    check_targets(logs)
    if options.resources:
        print_resources(logs)
    ops = check_kernels(build.link())
    names = " and ".join(f"sm_{number}" for number in ARCHITECTURES)
    print(f"{len(logs)} CUDA sources compile for {names}; the extension loads with CUDA kernels for {', '.join(ops)}.")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8), help="compilers at a time")
    parser.add_argument("--resources", action="store_true", help="print registers and spills of each kernel")
    try:
        build_all(parser.parse_args())
    except BrokenBuildError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
