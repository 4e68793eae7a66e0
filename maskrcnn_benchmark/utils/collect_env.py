"""What a run ran on, for the head of its log."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

PACKAGES = ("numpy", "opencv-python-headless", "opencv-python", "pycocotools", "yacs", "nvidia-dali-cuda130")


def collect_env_info() -> str:
    """One fact a line: versions, processors, threads, GPUs with their memory and driver-visible capability."""
    lines = [
        f"torch: {torch.__version__} (CUDA {torch.version.cuda or 'none'})",
        f"Python: {platform.python_version()}, {platform.platform()}",
        f"CPU: {os.cpu_count()} logical, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
    ]
    for name in PACKAGES:
        try:
            lines.append(f"{name}: {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        lines.append(f"cuDNN: {torch.backends.cudnn.version()}")
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            lines.append(f"GPU {index}: {gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, sm_{gpu.major}{gpu.minor}")
    return "\n".join(lines)
