"""What benchmarks/ops.py measures: each op at the shapes of a training step at 800x1344, and the peers' way to it.

A `Call` holds ours and how each peer does the same work on the same tensors. In a peer's favour nothing is charged to
it that comes before (choosing the level of each roi, drawing ground truth bitmaps, one-hot targets are part of its way
and counted; imports and conversions of the inputs are not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks import _op_peers as peers
from maskrcnn_benchmark.ops import roi_levels, winograd
from maskrcnn_benchmark.ops._library import plain_kernel
from tests.ops import winograd_cases
from tests.ops.deform_conv_cases import RES3, RES5
from tests.ops.inputs import BOX_HEAD, C4_POOL, MASK_HEAD, RoiCase, proposal_boxes

PLAIN = "plain PyTorch"
PLANES = "PyTorch, NCHW"  # the convolution that every peer calls, in the layout that they choose
Work = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """How large the inputs are and where they lie."""

    quick: bool = False
    device: str = "cpu"

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return (160, 224) if self.quick else (800, 1344)

    def number(self, full: int, quick: int) -> int:
        """How many of something there are."""
        return quick if self.quick else full

    def boxes(self, num_boxes: int, seed: int = 0) -> Tensor:
        """[num_boxes, 4] boxes such as a region proposal network gives."""
        return proposal_boxes(num_boxes, self.image_size, torch.Generator().manual_seed(seed)).to(self.device)

    def roi_case(self, case: RoiCase) -> RoiCase:
        """The case itself, or a small one of the same kind."""
        if not self.quick:
            return case
        return replace(case, num_rois=case.num_rois // 20 + 1, channels=64, image_size=self.image_size)


@dataclass(frozen=True)
class Call:
    """One piece of work: ours, and for each peer a function that prepares its way and returns it as a call."""

    op: str
    case: str
    ours: Work
    others: Mapping[str, Callable[[], Work]] = field(default_factory=dict)
    exact: bool | None = None  # whether the peers' results equal ours, or are close; None: they differ by design


def op_call(
    op: str,
    case: str,
    arguments: tuple[Any, ...],
    others: Mapping[str, Callable[[], Work]] | None = None,
    *,
    exact: bool | None = None,
) -> Call:
    """The call of an op of the library, beside its plain kernel and the peers."""
    compiled, plain = getattr(torch.ops.mrcnn, op), plain_kernel(op)
    return Call(
        op,
        case,
        lambda: compiled(*arguments),
        {**(others or {}), PLAIN: lambda: lambda: plain(*arguments)},
        exact,
    )


def roi_align_calls(setting: Setting) -> Iterator[Call]:
    """Box and mask heads in training and inference, both layouts."""
    cases = [BOX_HEAD, replace(BOX_HEAD, name="box_head_512", num_rois=512), MASK_HEAD]
    cases.append(replace(MASK_HEAD, name="mask_head_100", num_rois=100))
    for shape in cases:
        for channels_last in (False, True):
            yield from _roi_align_pair(setting, replace(shape, channels_last=channels_last))


def roi_align_more_calls(setting: Setting) -> Iterator[Call]:
    """Half precision, and as many samples as a bin has pixels."""
    for shape in (BOX_HEAD, MASK_HEAD):
        for channels_last in (False, True):
            yield from _roi_align_pair(setting, replace(shape, dtype=torch.bfloat16, channels_last=channels_last))
    yield from _roi_align_pair(setting, replace(BOX_HEAD, name="box_head_adaptive", sampling_ratio=0))


def _roi_align_pair(setting: Setting, case: RoiCase) -> Iterator[Call]:
    case = setting.roi_case(case)
    rois, features = case.make_rois().to(setting.device), [level.to(setting.device) for level in case.features()]
    levels = roi_levels(rois, spatial_scales=case.scales)
    text = f"{case.num_rois} rois, {case}"
    common = (list(case.scales), case.sampling_ratio)
    forward = (features, rois, levels, list(case.output_size), *common)
    has_peer = case.dtype == torch.float32  # torchvision has no bfloat16 here
    their_forward = {"torchvision": lambda: lambda: peers.torchvision_roi_align(*forward)} if has_peer else {}
    yield op_call("roi_align", text, forward, their_forward, exact=True)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    grad = torch.randn(case.num_rois, case.channels, *case.output_size).to(case.dtype)
    grad = grad.contiguous(memory_format=layout).to(setting.device)
    heights, widths = (list(sides) for sides in zip(*case.map_sizes(), strict=True))
    backward = (grad, rois, levels, case.num_images, heights, widths, *common, case.channels_last)
    their_backward = {"torchvision": lambda: lambda: peers.torchvision_roi_align_backward(*backward)}
    yield op_call("roi_align_backward", text, backward, their_backward if has_peer else {}, exact=False)


def roi_pool_calls(setting: Setting) -> Iterator[Call]:
    """The published C4 pooling."""
    case = setting.roi_case(C4_POOL)
    rois, features = case.make_rois().to(setting.device), case.features()[0].to(setting.device)
    bins, scale, text = list(case.output_size), case.scales[0], f"{case.num_rois} rois, {case}"
    theirs = {"torchvision": lambda: lambda: torch.ops.torchvision.roi_pool(features, rois, scale, *bins)[0]}
    yield op_call("roi_pool", text, (features, rois, bins, scale), theirs)
    output, argmax = torch.ops.mrcnn.roi_pool(features, rois, bins, scale)
    grad = torch.randn_like(output)
    sizes = (case.num_images, *case.map_sizes()[0])
    yield op_call(
        "roi_pool_backward",
        text,
        (grad, argmax, rois, *sizes, scale, False),
        {"torchvision": lambda: peers.torchvision_roi_pool_backward(grad, features, rois, bins, scale)},
    )


def deform_conv_calls(setting: Setting) -> Iterator[Call]:
    """Deformable convolution version 2 in res3 and res5."""
    for shape in (RES3, RES5):
        for channels_last in (False, True):
            case = replace(shape, channels_last=channels_last)
            case = replace(case, size=(12, 20), channels=32, output_channels=32) if setting.quick else case
            moved = [value.to(setting.device) if isinstance(value, Tensor) else value for value in case.arguments()]
            grad = case.backward_arguments()[0].to(setting.device)
            yield op_call(
                "deform_conv",
                str(case),
                tuple(moved),
                {"torchvision": lambda inputs=moved: lambda: peers.torchvision_deform_conv(*inputs)},
                exact=False,
            )
            yield op_call(
                "deform_conv_backward",
                str(case),
                (grad, *moved),
                {
                    "torchvision": lambda grad=grad, inputs=moved: (
                        lambda: peers.torchvision_deform_conv_grad(grad, *inputs)
                    )
                },
                exact=False,
            )


def winograd_calls(setting: Setting) -> Iterator[Call]:
    """3x3 convolutions of the network with bias and ReLU; the plain kernel is PyTorch's convolution, in NHWC."""
    if setting.device != "cpu" or not winograd._has_kernel():
        return
    for shape in (winograd_cases.PYRAMID, winograd_cases.MASK_HEAD, winograd_cases.RES4):
        case = replace(shape, size=(14, 14), num_images=6, channels=64, output_channels=64) if setting.quick else shape
        input, weight, scale, bias, relu = case.arguments()
        planes = (input.contiguous(), weight.contiguous(), bias)
        yield op_call(
            "winograd_conv",
            str(case),
            (input, weight, scale, bias, relu),
            {PLANES: lambda planes=planes: lambda: torch.conv2d(*planes, padding=1).relu_()},
            exact=False if scale is None else None,
        )
        yield op_call("winograd_conv_backward", str(case), case.backward_arguments())
