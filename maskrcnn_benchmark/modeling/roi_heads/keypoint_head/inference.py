"""Keypoints of detections: the peak of each heat map, enlarged to the size of its box.

Letters: R boxes, P keypoints, M side of a heat map, n boxes that are enlarged together to H x W.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Sharpness of the cubic kernel (Keys, 1981) as OpenCV and Detectron have it.
_SHARPNESS = -0.75
# Values of enlarged heat maps that are held at once; a large box alone may need more. A processor is fastest when they
# stay in its cache (four times as fast as with 1 << 23), a GPU with few launches.
_MAX_VALUES_CPU = 1 << 19
_MAX_VALUES_GPU = 1 << 23


def heat_maps_to_keypoints(maps: Tensor, boxes: Tensor, *, max_values: int | None = None) -> tuple[Tensor, Tensor]:
    """Find the keypoints of boxes, to the pixel.

    Each heat map is enlarged (or reduced) to the pixels of its box by bicubic interpolation, and its highest value is
    the keypoint; of equal ones the first, row by row. The result is the middle of that pixel.

    Args:
        maps: [R, P, M, M] logits.
        boxes: [R, 4] xyxy, pixels of any image.
        max_values: of enlarged maps that are held at once; None: what suits the device. It changes no result.

    Returns:
        points: [R, P, 3] float32 x, y in the image's pixels, and 1.
        logits: [R, P] float32, the highest values.
    """
    boxes = boxes.float()
    extents = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    sizes = extents.ceil()
    peaks = maps.new_zeros((*maps.shape[:2], 2), dtype=torch.float32)
    logits = maps.new_zeros(maps.shape[:2], dtype=torch.float32)
    if max_values is None:
        max_values = _MAX_VALUES_CPU if maps.device.type == "cpu" else _MAX_VALUES_GPU
    for chosen in _chunks(sizes, max_values // max(maps.shape[1], 1)):
        peaks[chosen], logits[chosen] = _peaks(maps[chosen], sizes[chosen])
    positions = (peaks + 0.5) * (extents / sizes)[:, None] + boxes[:, None, :2]
    return torch.nn.functional.pad(positions, (0, 1), value=1.0), logits


def _chunks(sizes: Tensor, max_pixels: int) -> Iterator[Tensor]:
    """Divide boxes of like area among chunks that fit into memory.

    Args:
        sizes: [R, 2] width and height in pixels.
        max_pixels: that the boxes of a chunk may have together, each as large as the largest; one box may have more.

    Yields:
        indices of boxes, int64.
    """
    order = sizes.prod(dim=1).argsort(descending=True)
    chunk_begin, width, height = 0, 0, 0
    for position, (own_width, own_height) in enumerate(sizes[order].tolist()):
        wider, higher = max(width, own_width), max(height, own_height)
        if position > chunk_begin and (position + 1 - chunk_begin) * wider * higher > max_pixels:
            yield order[chunk_begin:position]
            chunk_begin, wider, higher = position, own_width, own_height
        width, height = wider, higher
    if len(order):
        yield order[chunk_begin:]


def _peaks(maps: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Return column and row [n, P, 2] of the highest value of each map [n, P, M, M] at its size, and that value [n, P].

    Products in float64 are exact enough on every device, where float32 may stand for TF32 or, in autocast, for float16.
    """
    width, height = (int(v) for v in sizes.amax(dim=0).tolist())
    across, down = (
        cubic_weights(side, length, maps.shape[-1])
        for side, length in zip(sizes.double().unbind(dim=1), (width, height), strict=True)
    )
    wide = maps.double().flatten(1, 2) @ across.mT  # [n, P * M, W]
    enlarged = down[:, None] @ wide.unflatten(1, maps.shape[1:3])  # [n, P, H, W]
    logits, first = enlarged.flatten(2).max(dim=2)
    peaks = torch.stack((first % width, first // width), dim=2).float()
    # A pixel beyond a box is a copy of its last one, but for rounding.
    return torch.minimum(peaks, sizes[:, None] - 1), logits.float()


def cubic_weights(lengths: Tensor, most: int, num_cells: int) -> Tensor:
    """Return the matrices [n, most, M] float64 that interpolate M cells at the middles of each of ``lengths`` pixels.

    Beyond the borders the outermost cell goes on. A row beyond a box's own pixels repeats its last one.

    Args:
        lengths: [n] float64 pixels.
        most: rows of each matrix, no fewer than any of ``lengths``.
        num_cells: M.
    """
    pixels = torch.arange(most, dtype=torch.float64, device=lengths.device)
    pixels = torch.minimum(pixels, lengths[:, None] - 1)
    places = (pixels + 0.5) * (num_cells / lengths[:, None]) - 0.5  # in cells
    cells = torch.arange(-2, num_cells + 2, dtype=torch.float64, device=lengths.device)  # two beyond each border
    distance = (places[..., None] - cells).abs()
    near = ((_SHARPNESS + 2) * distance - (_SHARPNESS + 3)) * distance**2 + 1
    far = _SHARPNESS * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inner = weights[..., 2:-2].clone()
    inner[..., 0] += weights[..., :2].sum(dim=-1)
    inner[..., -1] += weights[..., -2:].sum(dim=-1)
    return inner
