"""Bilinear resize of a window of one mask, rounded exactly as torch's interpolate rounds on the CPU.

``interpolate(mode="bilinear", align_corners=False)`` of one channel has two formulas, chosen by the size of its output,
and its compiler fuses products with sums where the processor can. Both are repeated here, so that one pixel more or
less beside the threshold cannot occur; and a window of the output costs no more than itself.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor

# Up to this sum of output height and width torch weights the four neighbours at once; above it, one axis at a time.
_FOUR_POINT_LIMIT = 128

# Asked once: torch.compile cannot trace the question.
_TORCH_FUSES_PRODUCTS = torch.backends.cpu.get_cpu_capability() != "DEFAULT" or platform.machine() in (
    "aarch64",
    "arm64",
)


def torch_fuses_products() -> bool:
    """Whether torch's CPU kernels round a * b + c once, as on every processor with AVX2 or NEON."""
    return _TORCH_FUSES_PRODUCTS


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Rounds a * b + c of float32 tensors once.

    The product is exact in float64. Their sum is rounded to odd there, which makes the second rounding harmless
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    toward = torch.where(error > 0, torch.inf, -torch.inf).to(total)
    inexact_even = (error != 0) & error.isfinite() & (total.view(torch.int64) & 1 == 0)
    return torch.where(inexact_even, total.nextafter(toward), total).float()


def _multiply_add(a: Tensor, b: Tensor, c: Tensor, fused: bool) -> Tensor:
    return _fused(a, b, c) if fused else a * b + c


def _axis(
    in_size: int, out_size: int, start: int, stop: int, fused: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source indices (two, int64) and weights (two, float32) of the output positions start to stop."""
    positions = torch.arange(start, stop, device=device)
    if in_size == out_size:
        ones = torch.ones(stop - start, device=device)
        return positions, positions, ones, torch.zeros_like(ones)
    scale = torch.tensor(in_size, dtype=torch.float32, device=device) / torch.tensor(out_size, dtype=torch.float32)
    half = torch.tensor(-0.5, device=device)
    source = _multiply_add(positions.float() + 0.5, scale, half, fused).clamp(min=0)
    low = source.long().clamp(max=in_size - 1)
    high = (low + 1).clamp(max=in_size - 1)
    weight = source - low.float()
    return low, high, 1 - weight, weight


def resize_window(
    mask: Tensor,  # [S, S] float32
    *,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    fused: bool,
) -> Tensor:
    """A window of the mask resized to ``size``.

    Args:
        mask: [S, S] float32.
        size: (height, width) to which the whole mask is resized.
        window: (top, bottom, left, right) of the wanted part of it, ends exclusive.
        fused: whether a * b + c is rounded once.

    Returns:
        [bottom - top, right - left] float32.
    """
    top, bottom, left, right = window
    y0, y1, wy0, wy1 = _axis(mask.shape[0], size[0], top, bottom, fused, mask.device)
    x0, x1, wx0, wx1 = _axis(mask.shape[1], size[1], left, right, fused, mask.device)
    wy0, wy1 = wy0[:, None], wy1[:, None]
    if size[0] + size[1] <= _FOUR_POINT_LIMIT:
        above, below = mask[y0], mask[y1]
        total = _multiply_add(wy0 * wx0, above[:, x0], wy0 * wx1 * above[:, x1], fused)
        total = _multiply_add(wy1 * wx0, below[:, x0], total, fused)
        return _multiply_add(wy1 * wx1, below[:, x1], total, fused)
    rows = _multiply_add(mask[:, x0], wx0, mask[:, x1] * wx1, fused)
    return _multiply_add(rows[y0], wy0, rows[y1] * wy1, fused)
