"""The part of the network that does the same work in every step, recorded once: as CUDA graphs, or by torch.compile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config.validate import CAPTURES
from maskrcnn_benchmark.engine.precision import Precision

logger = logging.getLogger("maskrcnn_benchmark.trainer")

_WARM_UP_STEPS = 3  # what PyTorch's documentation of make_graphed_callables takes


def capture_trunk(
    model: Any,
    mode: str,
    *,
    shapes: Sequence[tuple[int, int]],
    num_images: int,
    precision: Precision,
    device: torch.device,
    compile_backend: str = "inductor",
) -> None:
    """Record the trunk of a network for some shapes of the image batch; training runs the records from then on.

    Hundreds of kernels are then started by one call for the forward pass and one for the backward pass. Call it before
    the network is wrapped for several processes and before a loader is made: recording must have the device for itself.
    Weights that are loaded later count, because they are written into the same memory.

    Args:
        model: on the device; has ``make_trunk`` and ``use_captured`` as GeneralizedRCNN has them.
        mode: "eager" records nothing; "cuda_graphs" does it here; "compile" when a shape comes for the first time.
        shapes: (height, width) of padded batches. Batches of other shapes run as they are.
        num_images: of a batch.
        precision: number format and layout of the training steps.
        device: where the network is.
        compile_backend: what torch.compile hands its graphs to.

    Raises:
        ValueError: the mode is unknown, or is not there on this device.
    """
    if mode not in CAPTURES:
        raise ValueError(f"MODEL.CAPTURE must be one of {', '.join(CAPTURES)}, got {mode!r}")
    if mode == "cuda_graphs" and device.type != "cuda":
        raise ValueError(f"MODEL.CAPTURE cuda_graphs needs CUDA, not {device.type}; set it to compile or eager")
    if mode == "eager" or not shapes:
        return
    model.train()
    batches = [(num_images, 3, height, width) for height, width in shapes]
    if mode == "compile":
        compiled = torch.compile(model.make_trunk(), fullgraph=True, dynamic=False, backend=compile_backend)
        model.use_captured(dict.fromkeys(batches, compiled))
    else:
        # One pool of memory for all: a step runs one shape's forward and backward pass before the next step begins.
        pool = torch.cuda.graph_pool_handle()
        model.use_captured({shape: _record(model.make_trunk(), shape, precision, device, pool) for shape in batches})
    logger.info("MODEL.CAPTURE %s: %d image(s) a step, padded to one of %s", mode, num_images, list(shapes))


def _record(
    trunk: nn.Module, shape: tuple[int, ...], precision: Precision, device: torch.device, pool: Any
) -> Callable[[Tensor], Any]:
    """The trunk as CUDA graphs of its forward and its backward pass for one shape."""
    images = torch.zeros(shape, dtype=precision.dtype, device=device)
    images = images.contiguous(memory_format=precision.memory_format)
    # Casts of weights must be part of the record, not come out of autocast's cache of this one pass.
    with _kept_buffers(trunk), _tuned_convolutions(), precision.autocast(cache=False):
        return torch.cuda.make_graphed_callables(trunk, (images,), num_warmup_iters=_WARM_UP_STEPS, pool=pool)


@contextlib.contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    """Undo in the end what a warm-up did to running statistics, in place, because the records hold their addresses."""
    saved = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)


@contextlib.contextmanager
def _tuned_convolutions() -> Iterator[None]:
    """Let cuDNN measure its algorithms in the warm-up; not where results must be the same from run to run."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
