"""Width and height of an image file, from its header where the format is known."""

from __future__ import annotations

from pathlib import Path

from maskrcnn_benchmark.data.image_io import decode_image

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
_HEADER_BYTES = 1 << 16
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
# Markers of frames: baseline, progressive and so on; C4, C8 and CC are tables and reserved.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) as stored, without EXIF rotation.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged or not an image.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_HEADER_BYTES)
            size = _size_in(start)
            if size is not None:
                return size
            data = start + file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"image {path} does not exist") from None
    height, width = decode_image(data, name=str(path)).shape[:2]
    return height, width


def _size_in(start: bytes) -> tuple[int, int] | None:
    """(height, width) by the first bytes of a PNG or JPEG file; None where they do not say."""
    if start.startswith(_PNG_START) and len(start) >= 24:
        return int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big")
    if not start.startswith(_JPEG_START):
        return None
    position = len(_JPEG_START)
    while position + 9 <= len(start) and start[position] == 0xFF:
        marker = start[position + 1]
        if marker in _FRAMES:
            height, width = (int.from_bytes(start[at : at + 2], "big") for at in (position + 5, position + 7))
            return (height, width) if height and width else None
        position += 1 if marker == 0xFF else 2 + int.from_bytes(start[position + 2 : position + 4], "big")
    return None
