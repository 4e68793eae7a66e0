"""The slow parts of COCO's evaluation: masks from polygons, overlaps of masks, and who finds which object.

D detections and G objects, both sorted so that each of N groups (the detections and objects of one image and category)
stands together; R masks, A area ranges, T thresholds. Masks are COCO's compressed run lengths, one after the other.
All work is done on the CPU, where results are read and written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.ops._coco_eval_plain import (
    check_match,
    check_rasterize,
    check_texts,
    match_detections_plain,
    rasterize_polygons_plain,
    rle_areas_plain,
    rle_overlaps_plain,
)
from maskrcnn_benchmark.ops._library import LIB, define_op


def rasterize_polygons(
    coords: Tensor,  # [V, 2]
    ring_offsets: Tensor,  # [Q + 1]
    instance_offsets: Tensor,  # [R + 1]
    sizes: Tensor,  # [R, 2]
) -> tuple[Tensor, Tensor]:
    """Fills polygons as pycocotools does (frPyObjects, then merge): the same pixels.

    Args:
        coords: float64, x and y of all vertices in pixels.
        ring_offsets: int64, where the rings begin in ``coords``; each has at least three vertices, or none.
        instance_offsets: int64, where the masks begin in the rings; a mask is the union of its rings.
        sizes: int64, height and width of each mask's image, with fewer than 2^32 pixels.

    Returns:
        Text uint8, and int64 [R + 1] where each mask begins in it.

    Raises:
        ValueError, TypeError: on shapes, types or offsets that do not fit.
    """
    return torch.ops.mrcnn.rasterize_polygons(coords, ring_offsets, instance_offsets, sizes)


def rle_areas(
    text: Tensor,
    offsets: Tensor,  # [R + 1]
) -> Tensor:
    """Number of set pixels of each mask, int64 [R].

    Raises:
        ValueError, TypeError: on shapes, types or offsets that do not fit.
    """
    return torch.ops.mrcnn.rle_areas(text, offsets)


def rle_overlaps(
    dt_text: Tensor,
    dt_offsets: Tensor,  # [D + 1]
    gt_text: Tensor,
    gt_offsets: Tensor,  # [G + 1]
    *,
    dt_groups: Tensor,  # [N + 1]
    gt_groups: Tensor,  # [N + 1]
    gt_crowd: Tensor,  # [G]
) -> Tensor:
    """Overlap of each detection with each object of its group; the masks of a group are of one size.

    Args:
        dt_text, dt_offsets: uint8 and int64, masks of the detections.
        gt_text, gt_offsets: uint8 and int64, masks of the objects.
        dt_groups, gt_groups: int64, where the groups begin among the detections and among the objects.
        gt_crowd: uint8, 1 for objects that are crowds.

    Returns:
        float64, for group after group the entries of a table [detections, objects]: intersection over union, with a
        crowd over the area of the detection.

    Raises:
        ValueError, TypeError: on shapes, types or offsets that do not fit.
    """
    return torch.ops.mrcnn.rle_overlaps(dt_text, dt_offsets, gt_text, gt_offsets, dt_groups, gt_groups, gt_crowd)


def match_detections(
    ious: Tensor,
    *,
    dt_groups: Tensor,  # [N + 1]
    gt_groups: Tensor,  # [N + 1]
    gt_ignored: Tensor,  # [A, G]
    gt_crowd: Tensor,  # [G]
    thresholds: Tensor,  # [T]
) -> Tensor:
    """Gives each detection the object that it finds, by the rules of pycocotools' COCOeval.

    Detections choose in their order, the best object that is free and covered to the threshold at least (of equal ones
    the last); one that is ignored only where there is no other. A crowd may be found many times.

    Args:
        ious: float64, as ``rle_overlaps`` gives them.
        dt_groups, gt_groups: int64, where the groups begin; the detections of each descend by score.
        gt_ignored: uint8, 1 for objects that do not count in an area range.
        gt_crowd: uint8, 1 for crowds.
        thresholds: float64.

    Returns:
        int32 [A, T, D], the number of the object, or -1.

    Raises:
        ValueError, TypeError: on shapes, types or offsets that do not fit.
    """
    return torch.ops.mrcnn.match_detections(ious, dt_groups, gt_groups, gt_ignored, gt_crowd, thresholds)


_RASTERIZE = define_op(
    "rasterize_polygons(Tensor coords, Tensor ring_offsets, Tensor instance_offsets, Tensor sizes) -> (Tensor, Tensor)",
    rasterize_polygons_plain,
)
_RLE_AREAS = define_op("rle_areas(Tensor text, Tensor offsets) -> Tensor", rle_areas_plain)
_RLE_OVERLAPS = define_op(
    "rle_overlaps(Tensor dt_text, Tensor dt_offsets, Tensor gt_text, Tensor gt_offsets, Tensor dt_groups, "
    "Tensor gt_groups, Tensor gt_crowd) -> Tensor",
    rle_overlaps_plain,
)
_MATCH_DETECTIONS = define_op(
    "match_detections(Tensor ious, Tensor dt_groups, Tensor gt_groups, Tensor gt_ignored, Tensor gt_crowd, "
    "Tensor thresholds) -> Tensor",
    match_detections_plain,
)


@torch.library.register_fake(_RASTERIZE, lib=LIB)
def _rasterize_polygons_fake(
    coords: Tensor, ring_offsets: Tensor, instance_offsets: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    check_rasterize(coords, ring_offsets, instance_offsets, sizes)
    length = torch.library.get_ctx().new_dynamic_size()
    return coords.new_empty((length,), dtype=torch.uint8), torch.empty_like(instance_offsets)


@torch.library.register_fake(_RLE_AREAS, lib=LIB)
def _rle_areas_fake(text: Tensor, offsets: Tensor) -> Tensor:
    check_texts("rle_areas", text, offsets)
    return offsets.new_empty((offsets.shape[0] - 1,))


@torch.library.register_fake(_RLE_OVERLAPS, lib=LIB)
def _rle_overlaps_fake(
    dt_text: Tensor,
    dt_offsets: Tensor,
    gt_text: Tensor,
    gt_offsets: Tensor,
    dt_groups: Tensor,
    gt_groups: Tensor,
    gt_crowd: Tensor,
) -> Tensor:
    check_texts("rle_overlaps", dt_text, dt_offsets)
    check_texts("rle_overlaps", gt_text, gt_offsets)
    return dt_offsets.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.float64)


@torch.library.register_fake(_MATCH_DETECTIONS, lib=LIB)
def _match_detections_fake(
    ious: Tensor, dt_groups: Tensor, gt_groups: Tensor, gt_ignored: Tensor, gt_crowd: Tensor, thresholds: Tensor
) -> Tensor:
    check_match(ious, dt_groups, gt_groups, gt_ignored, gt_crowd, thresholds)
    # As many as the last entry of dt_groups says.
    num_detections = torch.library.get_ctx().new_dynamic_size()
    return dt_groups.new_empty((gt_ignored.shape[0], thresholds.shape[0], num_detections), dtype=torch.int32)
