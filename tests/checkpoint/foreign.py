"""Files as other programs write them, from lists of names that are facts, and networks of the published shapes."""

from __future__ import annotations

import functools
import gzip
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

DATA = Path(__file__).parent / "data" / "foreign_state_dicts.json.gz"
CONTRACT = Path(__file__).parent.parent / "contract" / "state_dicts.json.gz"
CHANNELS = {64, 128, 256, 512, 1024, 2048, 12544}


@functools.cache
def read_facts(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def caffe2_names(model):
    """Blob -> (the end of) the name that it fills, for one of the published files."""
    return read_facts(DATA)["caffe2"][model]


def foreign_shapes(model):
    """Name -> shape in a torchvision or detectron2 state dict."""
    return read_facts(DATA)[model]


def published_shapes(config):
    """Name -> shape in the published network of a config."""
    contract = read_facts(CONTRACT)
    return contract["dicts"][contract["configs"][config]]


def shrink(shapes):
    """The same names with a sixteenth of the channels; the numbers of classes and anchors stay."""
    return {name: [size // 16 if size in CHANNELS else size for size in shape] for name, shape in shapes.items()}


class Skeleton(nn.Module):
    """Names and shapes of a network without anything that computes; the values tell that nothing was loaded."""

    START = -7.0

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            module = self
            for step in path:
                if step not in module._modules:
                    module.add_module(step, nn.Module())
                module = module._modules[step]
            module.register_buffer(leaf, torch.full(shape, self.START))


def values(name, shape):
    """Numbers that differ from name to name."""
    return np.random.default_rng(zlib.crc32(name.encode())).random(tuple(shape), dtype=np.float32)


def tensors(shapes):
    return {name: torch.from_numpy(values(name, shape)) for name, shape in shapes.items()}


def filling_blob(name, blobs):
    """The blob whose target ends a name of the network at a dot, the longest target of all; None where none does."""
    fits = [blob for blob, target in blobs.items() if name == target or name.endswith(f".{target}")]
    return max(fits, key=lambda blob: len(blobs[blob]), default=None)


def make_blobs(blobs, shapes):
    """Arrays for the blobs of a Caffe2 file, with the shapes of what they fill."""
    shape_of = {filling_blob(name, blobs): shape for name, shape in shapes.items()}
    return {blob: values(blob, shape_of.get(blob, [3])) for blob in blobs}


class Python2Array:
    """An array as Python 2 pickled it: its bytes are a string."""

    def __init__(self, array):
        self.array = array


class Python2Pickler(pickle._Pickler):
    """Writes str and bytes with the opcodes for Python 2's byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, text):
        raw = text if isinstance(text, bytes) else text.encode("latin-1")
        if not self.bin:
            # as repr wrote it: 'abc\x00'
            self.write(pickle.STRING + b"'" + "".join(map(_escape, raw)).encode("ascii") + b"'\n")
        elif len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = save_string
    dispatch[bytes] = save_string

    def save_array(self, wrapped):
        array = wrapped.array
        self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
        self.write(pickle.MARK + pickle.GLOBAL + b"numpy\nndarray\n")
        self.save((0,))
        self.save("b")
        self.write(pickle.TUPLE + pickle.REDUCE)
        self.write(pickle.MARK)
        self.save(1)
        self.save(array.shape)
        self.write(pickle.GLOBAL + b"numpy\ndtype\n")
        self.save((array.dtype.str[1:], 0, 1))
        self.write(pickle.REDUCE)
        self.save((3, "<", None, None, None, -1, -1, 0))
        self.write(pickle.BUILD)
        self.save(False)
        self.save(array.tobytes())
        self.write(pickle.TUPLE + pickle.BUILD)

    dispatch[Python2Array] = save_array


def _escape(byte):
    return chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"


def write_python2(path, data, protocol):
    """Pickle a dict of arrays, or of dicts of arrays, as Python 2 did."""

    def wrap(value):
        if isinstance(value, dict):
            return {key: wrap(item) for key, item in value.items()}
        return Python2Array(value) if isinstance(value, np.ndarray) else value

    with open(path, "wb") as file:
        Python2Pickler(file, protocol).dump(wrap(data))


def weight_names(shapes):
    """The names of a state dict that files of weights hold: all but those of the anchors, which the config decides."""
    return [name for name in shapes if "anchor_generator" not in name]
