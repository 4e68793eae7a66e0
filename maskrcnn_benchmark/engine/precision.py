"""In which number format and memory layout the network runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

logger = logging.getLogger("maskrcnn_benchmark.precision")

# "As published": what is no half precision is full precision.
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "fp32": torch.float32,
    "tf32": torch.float32,
}


@dataclass
class Precision:
    """Number format of the network and the loss scaler that goes with it.

    Args:
        device_type: "cpu" or "cuda".
        dtype: float32 runs without autocast; float16 with a loss scaler; bfloat16 without one.
        channels_last: whether images and weights lie in NHWC order.
    """

    device_type: str = "cpu"
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)

    @classmethod
    def from_config(cls, cfg: CfgNode, device: torch.device, *, use_amp: bool = False) -> Precision:
        """Choose from DTYPE and NHWC what the device is good at, and say where that differs from what was asked.

        Args:
            cfg: DTYPE (float16, bfloat16, float32, tf32) and NHWC.
            device: where the network runs.
            use_amp: ``--fp16`` or ``--amp`` was given: float16 whatever DTYPE says.
        """
        dtype = choose_dtype("float16" if use_amp else cfg.DTYPE, device)
        channels_last = cfg.NHWC
        if cfg.NHWC and device.type == "cpu" and not cpu_is_fast_channels_last():
            logger.info("NHWC: this processor trains faster in NCHW, which is used")
            channels_last = False
        return cls(device.type, dtype, channels_last)

    @property
    def memory_format(self) -> torch.memory_format:
        """Layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, *, cache: bool = True) -> torch.autocast:
        """Context in which the forward pass runs; without ``cache`` each use of a weight casts it anew."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=enabled, cache_enabled=cache)

    def place_model(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Move a model to the device, in the chosen layout; once, before training."""
        return model.to(device, memory_format=self.memory_format)

    def place_images(self, images: Any, device: torch.device) -> Any:
        """Move an ImageList to the device, its tensors in the chosen layout, without waiting for the copy."""
        return images.to(device, non_blocking=True, memory_format=self.memory_format)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type that DTYPE names, or float32 with a warning on a CPU where half precision would crawl.

    ``tf32`` is float32 with TF32 matrix products on CUDA; ``float32`` on CUDA means exact products.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in DTYPES:
        raise ValueError(f"DTYPE must be one of {', '.join(DTYPES)}, got {name!r}")
    dtype = DTYPES[name]
    if device.type == "cuda":
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):
            backend.fp32_precision = "tf32" if name == "tf32" else "ieee"
    elif dtype != torch.float32 and not cpu_is_fast_in(dtype):
        logger.warning(
            "DTYPE %s: this processor computes it 50 to 200 times slower than float32; float32 is used", name
        )
        return torch.float32
    return dtype


def cpu_is_fast_channels_last() -> bool:
    """Whether convolutions with channels last are as fast on this processor, or faster.

    With AVX-512 a training step takes 0.90 to 1.01 times as long as in NCHW, with AVX2 1.3 to 1.5 times.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def cpu_is_fast_in(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for the half-precision type."""
    if not torch.backends.mkldnn.is_available():
        return False
    check = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    return bool(getattr(torch.ops.mkldnn, check)())
