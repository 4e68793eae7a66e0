"""How large an image file says that it is, before any memory is taken for its pixels.

A few hundred bytes can claim a picture of gigabytes, and a decoder would believe them.
"""

from __future__ import annotations

import os

LIMIT_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"  # OpenCV's own, whose default is four times as many
_ASKED = os.environ.get(LIMIT_VARIABLE, "")
MOST_PIXELS = int(_ASKED) if _ASKED.isdigit() else 1 << 28  # 268 million; a 200 megapixel camera's picture passes
PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
# Markers of frames: baseline, progressive and so on; C4, C8 and CC are tables and reserved.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_TYPES = {3: 2, 4: 4}  # bytes of a short and a long


def size_in_header(data: bytes) -> tuple[int, int] | None:
    """(height, width) by the first bytes of a file, as stored, without EXIF rotation; None where they do not say."""
    if data.startswith(PNG_START) and len(data) >= 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    if data.startswith(JPEG_START):
        return _jpeg_size(data)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return int.from_bytes(data[8:10], "little"), int.from_bytes(data[6:8], "little")
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(height), abs(width)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    return None  # webp holds no more than the limit


def check_pixels(height: int, width: int, what: str) -> None:
    """Refuse a picture of more pixels than the limit, or of none.

    Args:
        height, width: in pixels.
        what: the file, as the message begins.

    Raises:
        ValueError: it has.
    """
    if height < 1 or width < 1:
        raise ValueError(f"{what} has {width}x{height} pixels (width x height), so there is nothing in it")
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"{what} has {width}x{height} pixels, more than the limit of {MOST_PIXELS}; if it is sound, set the "
            f"environment variable {LIMIT_VARIABLE} to more"
        )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = len(JPEG_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _FRAMES:
            height, width = (int.from_bytes(data[at : at + 2], "big") for at in (position + 5, position + 7))
            return (height, width) if height and width else None
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """By the first directory of the file."""
    order = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    sides: dict[int, int] = {}
    for entry in range(min(int.from_bytes(data[start : start + 2], order), 64)):
        at = start + 2 + 12 * entry
        tag, kind = (int.from_bytes(data[at + shift : at + shift + 2], order) for shift in (0, 2))
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT) and kind in _TIFF_TYPES:
            sides[tag] = int.from_bytes(data[at + 8 : at + 8 + _TIFF_TYPES[kind]], order)
    return (sides[_TIFF_HEIGHT], sides[_TIFF_WIDTH]) if len(sides) == 2 else None
