"""What a run runs on, for the head of its log and for its manifest."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "numpy", "opencv-python-headless", "opencv-python", "pycocotools", "orjson", "yacs", "torchvision",
    "nvidia-dali-cuda130", "nvidia-dali-cuda120", "apex",
)  # fmt: skip
# Variables that decide bits or the order of sums. Only these are ever recorded, so no secret can be among them.
VARIABLES = (
    "OMP_NUM_THREADS", "OMP_DYNAMIC", "OMP_SCHEDULE", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "OPENCV_IPP",
    "OPENCV_CPU_DISABLE", "OPENCV_FOR_THREADS_NUM",
    "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "TORCH_BLAS_PREFER_CUBLASLT", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_CUDNN_V8_API_DISABLED", "TORCHINDUCTOR_DETERMINISTIC",
    "TORCHINDUCTOR_MAX_AUTOTUNE", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    "NCCL_ALGO", "NCCL_PROTO", "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS", "NCCL_MAX_CTAS",
    "NCCL_NTHREADS", "NCCL_NVLS_ENABLE", "NCCL_COLLNET_ENABLE", "NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE",
    "NCCL_IB_DISABLE", "PYTHONHASHSEED", "MASKRCNN_REQUIRE_EXT", "TORCH_DETECTRON_ENV_MODULE",
)  # fmt: skip

_VECTOR_EXTENSIONS = re.compile(r"(sse4|avx|fma|amx|sve|asimd)\w*")


def collect_env_info() -> str:
    """One fact a line: versions, processors, threads, GPUs with their memory and capability."""
    versions, machine = collect_versions(), collect_machine()
    lines = [
        f"torch: {versions.pop('torch')} (CUDA {versions.get('cuda') or 'none'})",
        f"Python: {versions.pop('python')}, {platform.platform()}",
        f"CPU: {os.cpu_count()} logical, {torch.get_num_threads()} threads, {machine['instruction_set']}",
    ]
    lines += [f"{name}: {version}" for name, version in versions.items()]
    lines += [
        f"GPU {index}: {gpu['name']}, {gpu['memory_gib']} GiB, {gpu['capability']}"
        for index, gpu in enumerate(machine.get("gpus", ()))
    ]
    return "\n".join(lines)


def collect_versions() -> dict[str, str]:
    """The versions of Python, torch and the other packages that compute; of CUDA and its libraries where they are."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        versions["cudnn"] = str(torch.backends.cudnn.version())
        if torch.distributed.is_available() and torch.distributed.is_nccl_available():
            versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        versions["driver"] = _driver_version()
    return versions


def collect_machine() -> dict[str, Any]:
    """Processors and system: what decides which kernels run. Nothing here tells whose machine it is."""
    processor, extensions = _processor()
    facts: dict[str, Any] = {
        "system": platform.system(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "processor": processor,
        "architecture": platform.machine(),
        "vector_extensions": extensions,
        # What PyTorch's own kernels were chosen for.
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "logical_processors": os.cpu_count(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    return facts


def collect_variables() -> dict[str, str]:
    """Those of VARIABLES that are set, with their values."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _describe_gpu(index: int) -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(index)
    return {
        "name": gpu.name,
        "capability": f"sm_{gpu.major}{gpu.minor}",
        "memory_gib": round(gpu.total_memory / 2**30, 1),
        "multiprocessors": gpu.multi_processor_count,
    }


def _driver_version() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", text)
    return found.group(1) if found else ""


def _processor() -> tuple[str, str]:
    """The processor's name, and its vector instructions, of which libraries choose for themselves."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = sorted(flag for flag in (flags.group(1).split() if flags else ()) if _VECTOR_EXTENSIONS.fullmatch(flag))
    return (name.group(1) if name else platform.processor() or platform.machine()), " ".join(known)
