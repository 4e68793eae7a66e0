"""Sizes in headers of image files, compared with what OpenCV decodes, and pictures that claim too many pixels."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.apps.predict_files import read_upright
from maskrcnn_benchmark.data.datasets.image_size import read_image_size
from maskrcnn_benchmark.data.datasets.instance_png import read_ids
from maskrcnn_benchmark.data.image_header import LIMIT_VARIABLE, MOST_PIXELS, size_in_header
from maskrcnn_benchmark.data.image_io import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".tiff"])
def test_sizes_are_those_that_are_decoded(suffix: str) -> None:
    data = cv2.imencode(suffix, PIXELS)[1].tobytes()
    assert size_in_header(data) == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (37, 53)
    for end in range(60):  # a header that ends early says nothing, or the same
        assert size_in_header(data[:end]) in (None, (37, 53), (0, 53), (37, 0), (0, 0)) or suffix == ".tiff"
    assert size_in_header(b"RIFF....WEBP") is None


def png(width: int, height: int, colour: int = 0) -> bytes:
    pieces = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)), (b"IDAT", b"x"), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in pieces
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def jpeg(side: int) -> bytes:
    data = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    place = data.find(b"\xff\xc0")
    return data[: place + 5] + struct.pack(">HH", side, side) + data[place + 9 :]


def bmp(side: int) -> bytes:
    data = bytearray(cv2.imencode(".bmp", PIXELS)[1].tobytes())
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


CLAIMS = {"a.jpg": jpeg(65500), "b.jpg": jpeg(16400), "a.png": png(30000, 30000), "p.png": png(20000, 20000, colour=3),
          "c.png": png(2**31 - 1, 2**31 - 1), "a.bmp": bmp(30000)}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_more_pixels_than_the_limit(tmp_path: Path, name: str) -> None:
    """A file of hundreds of bytes that would take gigabytes: named, without the memory being taken."""
    path = tmp_path / name
    path.write_bytes(CLAIMS[name])
    readers = [read_image, read_upright] + [read_ids] * (path.suffix == ".png")
    readers += [read_image_size] * (path.suffix != ".bmp")
    for read in readers:
        tracemalloc.start()
        try:
            with pytest.raises(
                ValueError, match=rf"{name} has \d+x\d+ pixels, more than .* {MOST_PIXELS}; .*{LIMIT_VARIABLE}"
            ):
                read(path)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_a_large_camera_s_picture_passes() -> None:
    assert 16320 * 12240 < MOST_PIXELS
