"""Neural-network layers that know nothing of detectors, under their published names."""

from maskrcnn_benchmark.layers.batch_norm import FrozenBatchNorm2d
from maskrcnn_benchmark.layers.deform_conv import (
    DeformConv,
    DFConv2d,
    ModulatedDeformConv,
    ModulatedDeformConvPack,
    deform_conv,
    modulated_deform_conv,
)
from maskrcnn_benchmark.layers.misc import BatchNorm2d, Conv2d, ConvTranspose2d, interpolate
from maskrcnn_benchmark.layers.roi_align import ROIAlign, roi_align
from maskrcnn_benchmark.layers.roi_pool import ROIPool, roi_pool
from maskrcnn_benchmark.layers.sigmoid_focal_loss import SigmoidFocalLoss
from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss
from maskrcnn_benchmark.ops import nms

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "DFConv2d",
    "DeformConv",
    "FrozenBatchNorm2d",
    "ModulatedDeformConv",
    "ModulatedDeformConvPack",
    "ROIAlign",
    "ROIPool",
    "SigmoidFocalLoss",
    "deform_conv",
    "interpolate",
    "modulated_deform_conv",
    "nms",
    "roi_align",
    "roi_pool",
    "smooth_l1_loss",
]
