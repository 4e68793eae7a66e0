"""Which of the loaders a run uses."""

from __future__ import annotations

import functools
import importlib
import logging

import cv2
import numpy as np
import torch

logger = logging.getLogger(__name__)

_REMEDIES = {
    "dali": "NVIDIA DALI is not there ({}); install it with: pip install 'maskrcnn_benchmark[dali]'",
    "nvjpeg": "torchvision's decoder for GPUs is not there ({}); install it with: "
    "pip install 'maskrcnn_benchmark[nvjpeg]'",
}


def choose_backend(backend: str, *, hybrid: bool, device: torch.device) -> str:
    """The loader for a run: "workers", "dali" or "nvjpeg".

    Args:
        backend: "auto", or one of these. One that is missing is replaced by "workers", with one warning.
        hybrid: what "auto" means on a GPU: the best one that decodes there. Without a GPU, "auto" is "workers", because
            DALI needs several times as long as OpenCV on a CPU.
        device: of the network.
    """
    if backend == "workers" or (backend == "auto" and not (hybrid and device.type == "cuda")):
        return "workers"
    wanted = ("dali", "nvjpeg") if backend == "auto" else (backend,)
    faults = []
    for name in wanted:
        fault = what_dali_lacks() if name == "dali" else what_nvjpeg_lacks(device)
        if not fault:
            return name
        faults.append(_REMEDIES[name].format(fault))
    warn_once("images are decoded by OpenCV in worker processes: " + ", or ".join(faults))
    return "workers"


def what_dali_lacks() -> str:
    """Why DALI cannot be used here; "" when it can."""
    try:
        importlib.import_module("nvidia.dali.fn")
    except (ImportError, OSError, RuntimeError) as error:  # a wheel for another machine fails in either way
        return _first_line(error)
    return ""


def what_nvjpeg_lacks(device: torch.device) -> str:
    """Why torchvision cannot decode on ``device``; "" when it can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, and MODEL.DEVICE is {device}"
    _, probe = cv2.imencode(".jpg", np.zeros((8, 8, 3), dtype=np.uint8))
    try:
        # A torchvision of another torch, or one built without nvJPEG, fails here and not in the middle of a run.
        importlib.import_module("torchvision.io").decode_jpeg([torch.from_numpy(probe.reshape(-1))], device=device)
    except (ImportError, OSError, RuntimeError) as error:
        return _first_line(error)
    return ""


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time that it is given."""
    logger.warning(message)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
