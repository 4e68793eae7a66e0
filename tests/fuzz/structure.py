"""Changes inside files whose checksums then fit again, so that the reader gets past them."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
import zlib

import numpy as np

from tests.fuzz.mutate import WRONG, mutate_bytes, mutate_tree

_WORD = re.compile(rb"[\w.+-]+")
_PNG = b"\x89PNG\r\n\x1a\n"
_PREFIX = struct.Struct("<8sQI")  # of packed annotations: magic word, length of the header, its CRC-32


def mutate_words(data: bytes, rng: np.random.Generator) -> bytes:
    """Text with one to three words or numbers replaced, or doubled lines."""
    for _ in range(int(rng.integers(1, 4))):
        words = list(_WORD.finditer(data))
        if not words:
            return data
        word = words[int(rng.integers(len(words)))]
        value = WRONG[int(rng.integers(len(WRONG)))]
        data = data[: word.start()] + str(value).encode("utf-8", "replace") + data[word.end() :]
    return data


def mutate_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """A zip file with one entry changed, renamed, doubled, dropped, or compressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    pickles = [index for index, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
    at = pickles[0] if pickles and rng.integers(4) else int(rng.integers(len(entries)))
    name, content = entries[at]
    choice = int(rng.integers(10))
    if choice == 0:
        del entries[at]
    elif choice == 1:
        entries.append((name, content))
    elif choice == 2:
        entries[at] = (name + "x", content)
    elif name.endswith("data.pkl") and choice < 8:
        entries[at] = (name, mutate_pickle(content, rng))
    else:
        entries[at] = (name, mutate_bytes(content, rng, other=content))
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if choice == 9 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two entries with one name
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name) if choice != 9 else name, content)
    return out.getvalue()


def mutate_pickle(data: bytes, rng: np.random.Generator) -> bytes:
    """A pickle with whole instructions dropped, doubled, moved, or put in from elsewhere."""
    try:
        starts = [position for _, _, position in pickletools.genops(data)]
    except (ValueError, pickle.UnpicklingError):
        return mutate_bytes(data, rng)
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(int(rng.integers(1, 4))):
        at, other = (int(value) for value in rng.integers(len(pieces), size=2))
        match int(rng.integers(7)):
            case 0:
                pieces[at : at + int(rng.integers(1, 4))] = []
            case 1:
                pieces[at:at] = [pieces[at]] * int(rng.integers(1, 4))
            case 2:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces[at] = pieces[other]
            case 4:
                pieces[at:at] = [_STRANGE[int(rng.integers(len(_STRANGE)))]]
            case 5:
                pieces[at] = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
            case 6:
                pieces[at] = mutate_bytes(pieces[at], rng)
        if not pieces:
            return b"."
    return b"".join(pieces)


_NUMBERS = (
    b"K\x00",
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"M\xff\xff",
    b"N",
)
_STRANGE = (
    b"cposix\nsystem\n", b"c__builtin__\neval\n", b"cbuiltins\ngetattr\n",
    b"X\x05\x00\x00\x00touchX\x01\x00\x00\x00x\x93",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch._utils\n_rebuild_sparse_tensor\n", b"R", b"b",
    b"\x81", b"\x92", b"(", b"t", b")", b"}", b"]", b"0", b"1", b"2", b"Q", b"Pid\n", b"\x82\x01", b"\x97",
    b"(ios\nsystem\n", b"(cos\nsystem\no", b"\x85", b"e", b"u", b"s", b"a", b"N", b"\x8f", b"\x90", b"\x91",
)  # fmt: skip


def mutate_png(data: bytes, rng: np.random.Generator) -> bytes:
    """A png with one chunk changed, doubled, moved or dropped, all checksums right."""
    pieces, position = [], len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        pieces.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    at, other = (int(value) for value in rng.integers(len(pieces), size=2))
    match int(rng.integers(6)):
        case 0:
            del pieces[at]
        case 1:
            pieces[at:at] = [pieces[other]]
        case 2:  # another size, depth or kind of colour
            header = bytearray(pieces[0][1])
            place = int(rng.integers(len(header)))
            header[place] = int(rng.integers(256))
            pieces[0] = (pieces[0][0], bytes(header))
        case 3:
            sizes = [1, 65500, 2**31 - 1, 30000, 2**16]
            size = (sizes[int(rng.integers(len(sizes)))], sizes[int(rng.integers(len(sizes)))])
            pieces[0] = (pieces[0][0], struct.pack(">II", *size) + pieces[0][1][8:])
        case _:
            kind, content = pieces[at]
            if kind == b"IDAT" and rng.integers(2):
                content = zlib.compress(mutate_bytes(zlib.decompressobj().decompress(content), rng))
            else:
                content = mutate_bytes(content, rng)
            pieces[at] = (kind, content)
    chunks = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in pieces
    )
    return _PNG + b"".join(chunks)


def mutate_jpeg(data: bytes, rng: np.random.Generator) -> bytes:
    """A jpeg that claims another size, other components or a wild table; or any changed bytes."""
    frames = [place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := data.find(marker)) >= 0]
    if not frames or rng.integers(3) == 0:
        return mutate_bytes(data, rng, other=data)
    place = frames[0]
    if rng.integers(2):
        sizes = [1, 65500, 65535, 0, 32768, 16000]
        size = (sizes[int(rng.integers(len(sizes)))], sizes[int(rng.integers(len(sizes)))])
        return data[: place + 5] + struct.pack(">HH", *size) + data[place + 9 :]
    at = place + int(rng.integers(2, 16))
    return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]


def mutate_packed(data: bytes, rng: np.random.Generator) -> bytes:
    """Packed annotations with another header or other numbers, all checksums right."""
    magic, length, _ = _PREFIX.unpack(data[: _PREFIX.size])
    header, rest = json.loads(data[_PREFIX.size : _PREFIX.size + length]), data[_PREFIX.size + length :]
    if rng.integers(2):
        at = 8 * int(rng.integers(max(len(rest) // 8, 1)))
        values = [2**62, -1, 0, 1, 2**31, 7, -(2**63)]
        rest = rest[:at] + struct.pack("<q", values[int(rng.integers(len(values)))]) + rest[at + 8 :]
    else:
        key = header["key"]
        header = mutate_tree(header, rng)
        if isinstance(header, dict):
            header = {"key": key, **header}
    if isinstance(header, dict) and "checksum" in header:
        header["checksum"] = zlib.crc32(rest)
    text = json.dumps(header, default=str).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % 64)
    return _PREFIX.pack(magic, len(text), zlib.crc32(text)) + text + rest
