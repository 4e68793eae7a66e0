from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskrcnn_benchmark.data.image_io import decode_image, is_truncated, read_image


def picture() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, *flags: int) -> bytes:
    return cv2.imencode(suffix, picture(), flags)[1].tobytes()


JPEGS = [encoded(".jpg"), encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)]


@pytest.mark.parametrize("data", JPEGS)
def test_jpeg_is_read_in_bgr(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    image = read_image(path)
    assert (image.dtype, image.shape) == (np.uint8, (120, 160, 3))
    assert np.abs(image.astype(int) - picture()).mean() < 4


def test_png_is_exact_and_grey_becomes_three_channels() -> None:
    np.testing.assert_array_equal(decode_image(encoded(".png"), name="a"), picture())
    grey = cv2.imencode(".png", picture()[..., 0])[1].tobytes()
    np.testing.assert_array_equal(decode_image(grey, name="a"), np.repeat(picture()[..., :1], 3, axis=2))


@pytest.mark.parametrize("data", [*JPEGS, encoded(".png")])
def test_truncated_files_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cut"
    for length in (len(data) - 2, len(data) * 3 // 4, len(data) // 2, 40):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=rf"image {path} is truncated: .* after {length} bytes"):
            read_image(path)


def test_an_embedded_thumbnail_does_not_hide_a_truncation() -> None:
    data = JPEGS[0]
    thumbnail = b"\xff\xe1" + (2 + 6 + len(data)).to_bytes(2, "big") + b"Exif\0\0" + data
    with_thumbnail = data[:2] + thumbnail + data[2:]
    assert not is_truncated(with_thumbnail)
    assert decode_image(with_thumbnail, name="a").shape == (120, 160, 3)
    assert is_truncated(with_thumbnail[:-300])


@pytest.mark.parametrize("data", [JPEGS[0], encoded(".png")])
def test_bytes_after_the_end_are_allowed(data: bytes) -> None:
    image = decode_image(data + b"\0" * 100, name="a")
    np.testing.assert_array_equal(image, decode_image(data, name="a"))


def test_exif_rotation_is_not_applied() -> None:
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"  # orientation 6
    exif = b"\xff\xe1" + (2 + 6 + len(tiff)).to_bytes(2, "big") + b"Exif\0\0" + tiff
    rotated = JPEGS[0][:2] + exif + JPEGS[0][2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (160, 120, 3)
    np.testing.assert_array_equal(decode_image(rotated, name="a"), decode_image(JPEGS[0], name="a"))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(FileNotFoundError, match=rf"image {path} does not exist"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"image {path} is empty"):
        read_image(path)
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=rf"image {path} cannot be decoded"):
        read_image(path)
