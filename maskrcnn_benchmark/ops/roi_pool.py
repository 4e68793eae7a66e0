"""ROIPool: the maximum of each bin of a roi, on one feature map.

The published form with whole-pixel corners (Girshick, Fast R-CNN, 2015, section 2.1): corners are rounded, both ends
inclusive, bins may overlap by a pixel. N images, C channels, H W, R rois.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._checks import (
    FLOATING,
    accumulate_dtype,
    check_batch_indices,
    check_dtype,
    check_same_device,
    check_shape,
    check_value,
    memory_format_of,
)
from maskrcnn_benchmark.ops._library import LIB, define_op

_OP = "roi_pool"


def roi_pool(
    features: Tensor,  # [N, C, H, W]
    rois: Tensor,  # [R, 5] batch index, x1, y1, x2, y2
    *,
    output_size: tuple[int, int],
    spatial_scale: float,
) -> Tensor:
    """The largest value of each bin of each roi. Differentiable with respect to the features.

    Args:
        features: float32, float64, float16 or bfloat16, NCHW or channels_last; the result has the same layout.
        rois: inclusive xyxy pixels of the image. A negative batch index marks an empty slot, which gives zeros, as does
            a roi with a coordinate that is not finite. Rois get no gradient.
        output_size: (ph, pw) bins.
        spatial_scale: feature pixels per image pixel.

    Returns:
        [R, C, ph, pw] in the dtype of the features; a bin outside the map is zero. Of equal values the first, row by
        row, gets the gradient; NaN counts as the largest. On CUDA the gradients of a pixel are added in any order, or
        under ``torch.use_deterministic_algorithms`` in the order of the rois.

    Raises:
        ValueError: shapes that do not fit together, or a batch index of an image that is not there. On CUDA a look at
            the indices would make the host wait: there such a roi gives NaN instead.
        TypeError: a dtype that is not named above.
    """
    rois = rois.detach().to(accumulate_dtype(features.dtype))
    return torch.ops.mrcnn.roi_pool(features, rois, list(output_size), spatial_scale)[0]


def _check(features: Tensor, rois: Tensor, output_size: Sequence[int]) -> None:
    check_shape(features, _OP, "features", ("N", "C", "H", "W"))
    check_value(features.shape[2] > 0 and features.shape[3] > 0, _OP, f"H and W must be > 0, got {features.shape}")
    check_dtype(features, _OP, "features", FLOATING)
    check_value(
        len(output_size) == 2 and min(output_size) > 0,
        _OP,
        f"output_size must be two positive numbers, got {list(output_size)}",
    )
    check_shape(rois, _OP, "rois", ("R", 5))
    check_dtype(rois, _OP, "rois", (accumulate_dtype(features.dtype),))
    check_same_device(_OP, features=features, rois=rois)


def _round_away(values: Tensor) -> Tensor:
    """Rounds halves away from zero, as C does; torch.round takes them to the even neighbour."""
    whole = values.trunc()
    return whole + ((values - whole).abs() >= 0.5) * values.sign()


def _bin_edges(low: Tensor, high: Tensor, bins: int, extent: int) -> tuple[Tensor, Tensor]:
    """First pixel and end of each bin along one axis, for rois from ``low`` to ``high`` [R]: two [R, bins] int64."""
    low, high = _round_away(low), _round_away(high)
    size = ((high - low + 1).clamp(min=1) / low.new_tensor(bins))[:, None]
    index = torch.arange(bins, device=low.device, dtype=low.dtype)
    begin = torch.floor(index * size) + low[:, None]
    end = torch.ceil((index + 1) * size) + low[:, None]
    # Not a number, from a roi whose size overflows, counts as 0.
    begin, end = (edge.nan_to_num().clamp(0, extent) for edge in (begin, end))
    return begin.to(torch.int64), end.to(torch.int64)


def roi_pool_reference(
    features: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """The op ``mrcnn::roi_pool`` in plain PyTorch: the pooled values and the flat pixel index of each, -1 if none."""
    _check(features, rois, output_size)
    check_batch_indices(_OP, rois, features.shape[0])
    output, argmax = _empty_outputs(features, rois, output_size)
    output.zero_()
    argmax.fill_(-1)
    usable = rois.isfinite().all(dim=1) & (rois[:, 0] >= 0)
    corners = (torch.where(usable[:, None], rois, 0)[:, 1:] * spatial_scale).unbind(1)
    x_begin, x_end = (edge.tolist() for edge in _bin_edges(corners[0], corners[2], output_size[1], features.shape[3]))
    y_begin, y_end = (edge.tolist() for edge in _bin_edges(corners[1], corners[3], output_size[0], features.shape[2]))
    for roi in usable.nonzero().squeeze(1).tolist():
        image = features[int(rois[roi, 0])]
        for py, (top, bottom) in enumerate(zip(y_begin[roi], y_end[roi], strict=True)):
            for px, (left, right) in enumerate(zip(x_begin[roi], x_end[roi], strict=True)):
                if top < bottom and left < right:
                    values, place = image[:, top:bottom, left:right].flatten(1).max(dim=1)
                    output[roi, :, py, px] = values
                    row, column = place // (right - left), place % (right - left)
                    argmax[roi, :, py, px] = ((top + row) * features.shape[3] + left + column).to(torch.int32)
    return output, argmax


def roi_pool_backward_reference(
    grad: Tensor,
    argmax: Tensor,
    rois: Tensor,
    num_images: int,
    height: int,
    width: int,
    spatial_scale: float,
    channels_last: bool,
) -> Tensor:
    """The op ``mrcnn::roi_pool_backward`` in plain PyTorch."""
    check_batch_indices(_OP, rois, num_images)
    channels = grad.shape[1]
    sums = rois.new_zeros(num_images * channels * height * width)
    plane = rois[:, 0].nan_to_num().clamp(min=0).to(torch.int64)[:, None] * channels
    plane = plane + torch.arange(channels, device=grad.device)  # [R, C]
    index = plane[:, :, None, None] * (height * width) + argmax
    chosen = argmax >= 0
    sums.index_add_(0, index[chosen], grad[chosen].to(sums.dtype))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return sums.view(num_images, channels, height, width).to(grad.dtype).contiguous(memory_format=layout)


def _empty_outputs(features: Tensor, rois: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    shape = (rois.shape[0], features.shape[1], output_size[0], output_size[1])
    layout = memory_format_of(features)
    return (
        torch.empty(shape, dtype=features.dtype, device=features.device, memory_format=layout),
        torch.empty(shape, dtype=torch.int32, device=features.device, memory_format=layout),
    )


_FORWARD = define_op(
    "roi_pool(Tensor features, Tensor rois, int[2] output_size, float spatial_scale) -> (Tensor, Tensor)",
    roi_pool_reference,
)
_BACKWARD = define_op(
    "roi_pool_backward(Tensor grad, Tensor argmax, Tensor rois, SymInt num_images, SymInt height, SymInt width, "
    "float spatial_scale, bool channels_last) -> Tensor",
    roi_pool_backward_reference,
)


@torch.library.register_fake(_FORWARD, lib=LIB)
def _fake_forward(
    features: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    _check(features, rois, output_size)
    return _empty_outputs(features, rois, output_size)


@torch.library.register_fake(_BACKWARD, lib=LIB)
def _fake_backward(
    grad: Tensor,
    argmax: Tensor,
    rois: Tensor,
    num_images: int,
    height: int,
    width: int,
    spatial_scale: float,
    channels_last: bool,
) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (num_images, grad.shape[1], height, width)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, rois, _, spatial_scale = inputs
    ctx.save_for_backward(output[1], rois)
    ctx.mark_non_differentiable(output[1])
    ctx.size = (features.shape[0], features.shape[2], features.shape[3])
    ctx.spatial_scale = spatial_scale
    ctx.channels_last = memory_format_of(features) == torch.channels_last


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
    argmax, rois = ctx.saved_tensors
    features_grad = torch.ops.mrcnn.roi_pool_backward(
        grad, argmax, rois, *ctx.size, ctx.spatial_scale, ctx.channels_last
    )
    return features_grad, None, None, None


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context, lib=LIB)
