"""What the header of a JPEG file says, without decoding it."""

from __future__ import annotations

_START = b"\xff\xd8"
_FILL = 0xFF
_SCAN = 0xDA
_JFIF = 0xE0
_ADOBE = 0xEE
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive, all with Huffman codes
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}  # without the tables and the reserved one
_FRAME_BYTES = 6  # precision, height, width, number of components


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file that every decoder takes for the same picture; None for all other data.

    Plain is a file with 8 bits a sample and Huffman codes, grey or in YCbCr. Not plain are CMYK, RGB, 12 bits, lossless
    and arithmetic coding, which decoders refuse or take for something else. Whether three components are YCbCr is told
    by JFIF's and Adobe's markers or else by their names, as ITU-T T.872 and libjpeg have it.
    """
    if not data.startswith(_START):
        return None
    position, has_jfif, adobe_transform = len(_START), False, None
    while position + 4 <= len(data) and data[position] == _FILL:
        marker = data[position + 1]
        if marker == _FILL:
            position += 1
            continue
        if marker == _SCAN or marker in _OTHER_FRAMES:
            return None
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if marker in _PLAIN_FRAMES:
            return _frame_size(segment, has_jfif=has_jfif, adobe_transform=adobe_transform)
        if marker == _JFIF and segment.startswith(b"JFIF\0"):
            has_jfif = True
        elif marker == _ADOBE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe_transform = segment[11]
        position += 2 + length
    return None


def _frame_size(frame: bytes, *, has_jfif: bool, adobe_transform: int | None) -> tuple[int, int] | None:
    if len(frame) < _FRAME_BYTES or frame[0] != 8:
        return None
    height, width, components = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
    if components == 3:
        if has_jfif:
            is_plain = True
        elif adobe_transform is not None:
            is_plain = adobe_transform == 1
        else:
            is_plain = frame[_FRAME_BYTES : _FRAME_BYTES + 9 : 3] != b"RGB"
    else:
        is_plain = components == 1
    return (height, width) if is_plain and height and width else None
