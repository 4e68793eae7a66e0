"""Reads the file of a W&B run that was never sent: LevelDB's log format with a head of its own, records in protobuf."""

from __future__ import annotations

import struct
import zlib

BLOCK, HEAD = 32768, 7
FULL, LAST = 1, 4


def records(path):
    """The protobuf messages in a run-<id>.wandb file."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, content = HEAD, b""
    while position + HEAD <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEAD:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + HEAD : position + HEAD + length]
        assert zlib.crc32(data[position + 6 : position + 7] + part) == checksum
        content, position = content + part, position + HEAD + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            content = b""
            yield record
