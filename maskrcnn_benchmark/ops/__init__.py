"""Functions on tensors: one module an op, each with a plain PyTorch kernel that compiled ones override per device.

Boxes are inclusive (x1, y1, x2, y2) pixels: a box is x2 - x1 + 1 wide.
"""

from __future__ import annotations

from maskrcnn_benchmark.ops._library import backend_info
from maskrcnn_benchmark.ops.coco_eval import match_detections, rasterize_polygons, rle_areas, rle_overlaps
from maskrcnn_benchmark.ops.deform_conv import deform_conv
from maskrcnn_benchmark.ops.mask_targets import polygon_mask_targets
from maskrcnn_benchmark.ops.match import match_boxes
from maskrcnn_benchmark.ops.nms import batched_nms, nms
from maskrcnn_benchmark.ops.normalize_images import normalize_images
from maskrcnn_benchmark.ops.paste_masks import paste_masks, paste_masks_rle
from maskrcnn_benchmark.ops.roi_align import roi_align, roi_levels
from maskrcnn_benchmark.ops.roi_pool import roi_pool
from maskrcnn_benchmark.ops.sigmoid_focal_loss import sigmoid_focal_loss
from maskrcnn_benchmark.ops.winograd import winograd_conv, winograd_pays

__all__ = [
    "backend_info",
    "batched_nms",
    "deform_conv",
    "match_boxes",
    "match_detections",
    "nms",
    "normalize_images",
    "paste_masks",
    "paste_masks_rle",
    "polygon_mask_targets",
    "rasterize_polygons",
    "rle_areas",
    "rle_overlaps",
    "roi_align",
    "roi_levels",
    "roi_pool",
    "sigmoid_focal_loss",
    "winograd_conv",
    "winograd_pays",
]
