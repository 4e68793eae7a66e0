"""Image files to arrays, with an error for everything that OpenCV would pass over in silence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskrcnn_benchmark.data.image_header import check_pixels, size_in_header
from maskrcnn_benchmark.data.read_watch import read_bytes

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
# The pixels as they are stored, without EXIF rotation: annotations refer to them, and the published code reads them so.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file.

    Args:
        path: a JPEG, PNG or any other file that OpenCV decodes.

    Returns:
        uint8 [H, W, 3], BGR, EXIF orientation ignored.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is truncated or not an image; the message names it.
    """
    return decode_image(read_file(path), name=str(path))


def read_file(path: str | Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"image {path} does not exist; check the image folder of the data set and the file names in its json"
        ) from None


def decode_image(data: bytes, *, name: str) -> np.ndarray:
    """Decode the bytes of an image file; ``name`` stands in the errors. See :func:`read_image`."""
    if not data:
        raise ValueError(f"image {name} is empty (0 bytes); fetch it again")
    if is_truncated(data):
        # The decoder would fill the missing rows with grey and go on.
        raise ValueError(f"image {name} is truncated: it has no end marker after {len(data)} bytes; fetch it again")
    if (size := size_in_header(data)) is not None:
        check_pixels(*size, f"image {name}")
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), _READ_FLAGS)
    except cv2.error as error:
        raise ValueError(f"image {name} cannot be decoded ({error.err}); fetch it again") from error
    if image is None:
        raise ValueError(f"image {name} cannot be decoded: not an image, or damaged; fetch it again")
    return image


def is_truncated(data: bytes) -> bool:
    """Whether a JPEG or PNG file ends before its end marker; False for other formats.

    Bytes after the marker are allowed: cameras and editors append some.
    """
    if data.startswith(_JPEG_START):
        return not data.endswith(_JPEG_END) and data.find(_JPEG_END, _scan_start(data)) < 0
    if data.startswith(_PNG_SIGNATURE):
        return data.rfind(_PNG_END) < 0
    return False


def _scan_start(data: bytes) -> int:
    """Where the first JPEG scan begins: an end marker before it belongs to an embedded thumbnail."""
    position = len(_JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == _JPEG_SCAN:
            return position
        if data[position + 1] == 0xFF:  # a fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)
