"""The package's ops, and a stable sort, in standard ONNX operators. These functions are traced, not run.

B rows, K slots a row; N images, C channels, H W, R rois. Values are symbols of a graph; other arguments are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18 as op
from onnxscript import opset19

_INT64, _FLOAT, _BOOL = 7, 1, 9  # of onnx.TensorProto


def _number(value: int) -> Any:
    return op.Constant(value_int=value)


def _column(rows: Any, index: int) -> Any:
    """Column ``index`` of rows [R, ...] as [R, 1]."""
    return op.Slice(rows, [index], [index + 1], [1])


def roi_align(
    features: Sequence[Any],
    rois: Any,
    levels: Any | None,
    output_size: Sequence[int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
) -> Any:
    """See `ops.roi_align`. Every roi is pooled from every level, and the right one chosen: shapes stay fixed.

    The mode output_half_pixel is the published form without a half-pixel shift and with sides of one pixel at least.
    """
    index = op.Squeeze(op.Cast(_column(rois, 0), to=_INT64), [1])
    images = op.Max(index, _number(0))  # an empty slot reads image 0 and is cleared below
    boxes = op.Slice(rois, [1], [5], [1])
    result = None
    for level, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        pooled = op.RoiAlign(
            feature,
            boxes,
            images,
            coordinate_transformation_mode="output_half_pixel",
            mode="avg",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=sampling_ratio,
            spatial_scale=scale,
        )
        if result is None:
            result = pooled
        else:
            belongs = op.Equal(levels, _number(level))
            result = op.Where(op.Reshape(belongs, [-1, 1, 1, 1]), pooled, result)
    filled = op.GreaterOrEqual(index, _number(0))
    return op.Where(op.Reshape(filled, [-1, 1, 1, 1]), result, op.Constant(value_float=0.0))


def batched_nms(boxes: Any, valid: Any, iou_threshold: float, offset: int) -> Any:
    """See `ops.batched_nms`. NonMaxSuppression knows no inclusive pixels: the far corners move out by ``offset``."""
    num_slots = op.Slice(op.Shape(valid), [1], [2], [0])
    boxes = op.Add(boxes, op.Constant(value_floats=[0.0, 0.0, float(offset), float(offset)]))
    # Slots are sorted already: their ranks are scores without ties, and those of empty slots fall below 0.5.
    ranks = op.Range(op.Squeeze(num_slots, [0]), _number(0), _number(-1))
    scores = op.Where(valid, op.Cast(ranks, to=_FLOAT), op.Constant(value_float=0.0))
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, [1]),
        num_slots,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.5]),
    )  # [n, 3] of row, class, slot
    kept = op.Concat(_column(selected, 0), _column(selected, 2), axis=1)
    nowhere = op.And(valid, op.Not(valid))
    ones = op.Expand(op.Cast(_number(1), to=_BOOL), op.Slice(op.Shape(selected), [0], [1], [0]))
    return op.ScatterND(nowhere, kept, ones)


def deform_conv(
    input: Any,
    weight: Any,
    offset: Any,
    mask: Any | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deformable_groups: int,
) -> Any:
    """See `ops.deform_conv`; the order of the offsets is the same."""
    return opset19.DeformConv(
        input,
        weight,
        offset,
        None,
        mask,
        strides=list(stride),
        pads=[*padding, *padding],
        dilations=list(dilation),
        group=groups,
        offset_group=deformable_groups,
    )


def stable_sort(values: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """aten.sort.stable: TopK of all values, which of equal ones takes the first first."""
    size = op.Slice(op.Shape(values), [dim], [dim + 1] if dim != -1 else [2**62], [0])
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.mrcnn.roi_align.default: roi_align,
    torch.ops.mrcnn.batched_nms.default: batched_nms,
    torch.ops.mrcnn.deform_conv.default: deform_conv,
    torch.ops.aten.sort.stable: stable_sort,
}
