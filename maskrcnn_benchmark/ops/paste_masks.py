"""Pasting of predicted masks into images: to dense masks, and straight to COCO's run lengths.

R detections, M the side of a predicted mask, S = M + 2 * padding, h and w of the image.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from maskrcnn_benchmark.ops._checks import check_dtype, check_same_device, check_shape, check_value
from maskrcnn_benchmark.ops._library import LIB, define_op
from maskrcnn_benchmark.ops._resize import resize_window, torch_fuses_products

# Frames are cut to this, far beyond any image, so that their sides fit into int32.
_FAR = 1 << 29


def paste_masks(
    masks: Tensor,  # [R, M, M]
    boxes: Tensor,  # [R, 4] xyxy
    *,
    image_size: tuple[int, int],
    threshold: float,
    padding: int = 1,
) -> Tensor:
    """Resizes each mask to its box in an empty image, as the original Masker does.

    The mask gets a border of ``padding`` zeros, the box grows by the same ratio about its centre and is truncated to
    integers; the mask is resized to it bilinearly (align_corners=False). Values equal those of torch's interpolate on
    the CPU to the bit. Parts outside the image are cut off; a box with x2 < x1 pastes nothing.

    The work is done on the CPU wherever the masks lie: from another device they are copied, small as they are, and the
    result is copied back. Whoever needs run lengths takes ``paste_masks_rle``, which copies no image.

    Args:
        masks: [R, M, M] probabilities, any float type (computed in float32).
        boxes: [R, 4] (x1, y1, x2, y2) in inclusive pixels of the image.
        image_size: (height, width) in pixels.
        threshold: pixels above it are set; a negative one asks for heat maps.
        padding: border in pixels of the mask.

    Returns:
        [R, h, w] bool on the device of the masks; with a negative threshold uint8, the probabilities times 255. It
        carries no gradient.

    Raises:
        ValueError: on shapes that do not fit, sizes that are not positive, or masks and boxes on different devices.
    """
    padded, frames = _prepare(masks, boxes, padding)
    height, width = image_size
    images = torch.ops.mrcnn.paste_masks(padded, frames, height, width, threshold, torch_fuses_products())
    return images.to(masks.device)


def paste_masks_rle(
    masks: Tensor,  # [R, M, M]
    boxes: Tensor,  # [R, 4] xyxy
    *,
    image_size: tuple[int, int],
    threshold: float,
    padding: int = 1,
) -> list[dict[str, list[int] | bytes]]:
    """The same as COCO's compressed run lengths, without the dense masks in between.

    Args:
        masks, boxes, image_size, padding: as in ``paste_masks``.
        threshold: at least 0.

    Returns:
        One ``{"size": [h, w], "counts": bytes}`` a mask, equal to pycocotools' encode of what ``paste_masks`` returns.

    Raises:
        ValueError: on shapes that do not fit, sizes that are not positive, a negative threshold, or masks and boxes on
            different devices.
    """
    padded, frames = _prepare(masks, boxes, padding)
    height, width = image_size
    data, offsets = torch.ops.mrcnn.paste_masks_rle(padded, frames, height, width, threshold, torch_fuses_products())
    text, ends = data.numpy().tobytes(), offsets.tolist()
    return [{"size": [height, width], "counts": text[start:end]} for start, end in pairwise(ends)]


def _prepare(masks: Tensor, boxes: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Masks with their border [R, S, S], and the integer frames [R, 4] int64 (x1, y1, x2, y2) they fill, on the CPU."""
    check_shape(masks, "paste_masks", "masks", ("R", "M", "M"))
    check_shape(boxes, "paste_masks", "boxes", (masks.shape[0], 4))
    side = masks.shape[-1]
    check_value(masks.shape[1] == side >= 1, "paste_masks", f"masks must be square, got {list(masks.shape)}")
    check_value(padding >= 0, "paste_masks", f"padding must be at least 0, got {padding}")
    check_same_device("paste_masks", masks=masks, boxes=boxes)
    padded = torch.nn.functional.pad(masks.detach().cpu().float(), (padding,) * 4)
    corner1, corner2 = boxes.detach().cpu().float().split(2, dim=-1)
    half = (corner2 - corner1) * 0.5 * ((side + 2 * padding) / side)
    centre = (corner2 + corner1) * 0.5
    grown = torch.cat([centre - half, centre + half], dim=-1)
    frames = grown.nan_to_num().clamp(-_FAR, _FAR).long()
    nothing = frames.new_tensor([0, 0, -1, -1])
    return padded, torch.where(grown.isnan().any(dim=-1, keepdim=True), nothing, frames)


def _check(masks: Tensor, frames: Tensor, height: int, width: int) -> None:
    op = "paste_masks"
    check_shape(masks, op, "masks", ("R", "S", "S"))
    check_value(masks.shape[1] == masks.shape[2], op, f"masks must be square, got {list(masks.shape)}")
    check_shape(frames, op, "frames", (masks.shape[0], 4))
    check_dtype(masks, op, "masks", (torch.float32,))
    check_dtype(frames, op, "frames", (torch.int64,))
    check_same_device(op, masks=masks, frames=frames)
    check_value(height >= 1 and width >= 1, op, f"image_size must be positive, got ({height}, {width})")


def _check_rle(masks: Tensor, frames: Tensor, height: int, width: int, threshold: float) -> None:
    _check(masks, frames, height, width)
    check_value(threshold >= 0, "paste_masks_rle", f"threshold must be at least 0, got {threshold}")


def _paste_masks_plain(masks: Tensor, frames: Tensor, height: int, width: int, threshold: float, fused: bool) -> Tensor:
    _check(masks, frames, height, width)
    images = masks.new_zeros((masks.shape[0], height, width), dtype=torch.bool if threshold >= 0 else torch.uint8)
    for image, mask, (x1, y1, x2, y2) in zip(images, masks, frames.tolist(), strict=True):
        top, bottom, left, right = max(y1, 0), min(y2 + 1, height), max(x1, 0), min(x2 + 1, width)
        if top >= bottom or left >= right:
            continue
        window = (top - y1, bottom - y1, left - x1, right - x1)
        values = resize_window(mask, size=(y2 - y1 + 1, x2 - x1 + 1), window=window, fused=fused)
        image[top:bottom, left:right] = values > threshold if threshold >= 0 else (values * 255).to(torch.uint8)
    return images


def _paste_masks_rle_plain(
    masks: Tensor, frames: Tensor, height: int, width: int, threshold: float, fused: bool
) -> tuple[Tensor, Tensor]:
    _check_rle(masks, frames, height, width, threshold)
    counts = []
    for index in range(masks.shape[0]):
        dense = _paste_masks_plain(
            masks[index : index + 1], frames[index : index + 1], height, width, threshold, fused
        )[0]
        counts.append(coco_mask.encode(np.asfortranarray(dense.cpu().numpy().view(np.uint8)))["counts"])
    data = torch.from_numpy(np.frombuffer(b"".join(counts), dtype=np.uint8).copy())
    offsets = torch.tensor([0, *map(len, counts)]).cumsum(0)
    return data.to(masks.device), offsets.to(masks.device)


_PASTE_MASKS = define_op(
    "paste_masks(Tensor masks, Tensor frames, SymInt height, SymInt width, float threshold, bool fused) -> Tensor",
    _paste_masks_plain,
)
_PASTE_MASKS_RLE = define_op(
    "paste_masks_rle(Tensor masks, Tensor frames, SymInt height, SymInt width, float threshold, bool fused)"
    " -> (Tensor, Tensor)",
    _paste_masks_rle_plain,
)


@torch.library.register_fake(_PASTE_MASKS, lib=LIB)
def _paste_masks_fake(masks: Tensor, frames: Tensor, height: int, width: int, threshold: float, fused: bool) -> Tensor:
    _check(masks, frames, height, width)
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.bool if threshold >= 0 else torch.uint8)


@torch.library.register_fake(_PASTE_MASKS_RLE, lib=LIB)
def _paste_masks_rle_fake(
    masks: Tensor, frames: Tensor, height: int, width: int, threshold: float, fused: bool
) -> tuple[Tensor, Tensor]:
    _check_rle(masks, frames, height, width, threshold)
    length = torch.library.get_ctx().new_dynamic_size()
    return masks.new_empty((length,), dtype=torch.uint8), frames.new_empty((masks.shape[0] + 1,))
