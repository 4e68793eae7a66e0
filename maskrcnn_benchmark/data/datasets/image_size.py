"""Width and height of an image file, from its header where the format is known."""

from __future__ import annotations

from pathlib import Path

from maskrcnn_benchmark.data.image_header import JPEG_START, PNG_START, check_pixels, size_in_header
from maskrcnn_benchmark.data.image_io import decode_image

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
_HEADER_BYTES = 1 << 16


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) as stored, without EXIF rotation.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, not an image, or has more pixels than any sound one.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_HEADER_BYTES)
            size = size_in_header(start) if start.startswith((PNG_START, JPEG_START)) else None
            if size is not None:
                check_pixels(*size, f"image {path}")
                return size
            data = start + file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    height, width = decode_image(data, name=str(path)).shape[:2]
    return height, width
