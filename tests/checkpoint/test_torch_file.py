"""Files of torch.save made to do harm: what is no plain tensor, or claims more than it has, is refused by name."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint.files import read_weights

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def write(path, program, *, extra=(), method=zipfile.ZIP_STORED):
    """A file of torch.save with this pickle, and one storage of 16 bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (
            ("data.pkl", program),
            ("version", b"3\n"),
            ("byteorder", b"little"),
            ("data/0", b"\0" * 16),
        ):
            archive.writestr(f"archive/{name}", content)
        for name, content in extra:
            archive.writestr(name, content)
    return str(path)


def tensor(numbers, size, stride, *, offset=0):
    """A dict with one float tensor, by hand: a storage of so many numbers, and the view of it."""

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(numbers)
    view = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85\x89ccollections\nOrderedDict\n)R"
    return b"\x80\x02}X\x01\x00\x00\x00w" + REBUILD + b"(" + storage + b"tQ" + view + b"tRs."


def assert_refused(path, words):
    with pytest.raises(ValueError, match=words) as error:
        read_weights(path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_the_handmade_file_is_sound_where_nothing_is_wrong_with_it(tmp_path):
    assert torch.equal(read_weights(write(tmp_path / "w.pth", tensor(4, 4, 1)))["w"], torch.zeros(4))


@pytest.mark.parametrize(
    "numbers",
    [(1 << 30, 1 << 30, 1), (4, 1 << 30, 0), (4, 8, 1), (4, -4, 1), (4, 4, -1), (1 << 62, 4, 1), (-4, 4, 1),
     (4, 1 << 62, 1)],
)  # fmt: skip
def test_tensors_that_claim_more_than_the_file_has(tmp_path, numbers):
    """A declared tensor of 4 GB among them: without the memory for it ever being taken."""
    assert_refused(write(tmp_path / "w.pth", tensor(*numbers)), "is refused|is truncated")
    assert_refused(write(tmp_path / "w.pth", tensor(4, 4, 1, offset=1 << 40)), "is refused|is truncated")


def test_a_view_of_one_number_that_claims_a_gigabyte(tmp_path):
    path = str(tmp_path / "w.pth")
    torch.save({"w": torch.zeros(1).expand(1 << 30)}, path)
    assert_refused(path, "its tensor 'w' claims more numbers than the file has for it")


def test_one_storage_seen_a_thousand_times(tmp_path):
    path, whole = str(tmp_path / "w.pth"), torch.zeros(1 << 18)
    torch.save({str(number): whole[number:] for number in range(1000)}, path)
    assert_refused(path, "many times the memory of its own size")
    torch.save({"a": whole, "b": whole, "c": whole.view(512, 512)}, path)  # layers that share their weights
    assert len(read_weights(path)) == 3


SPECIAL = {
    "sparse": lambda: torch.zeros(3, 3).to_sparse(),
    "meta": lambda: torch.empty(1 << 40, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights(tmp_path, kind):
    path = str(tmp_path / "w.pth")
    torch.save({"model": {"a.weight": SPECIAL[kind]()}}, path)
    assert_refused(path, r"is refused: .*a\.weight|is refused: it asks for|is truncated or no checkpoint")


def deep(count):
    return b"\x80\x02})" + b"\x85" * count + b"K\x01s."


def test_tuples_so_deep_that_torch_itself_would_crash(tmp_path):
    assert_refused(write(tmp_path / "w.pth", deep(100000)), "nests tuples more than 100 deep")
    legacy = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})) + deep(100000)
    (tmp_path / "old.pth").write_bytes(legacy + pickle.dumps([], 2))
    assert_refused(str(tmp_path / "old.pth"), "nests tuples more than 100 deep")


def test_archives_that_torch_never_writes(tmp_path):
    path, sound = tmp_path / "w.pth", tensor(4, 4, 1)
    assert_refused(write(path, sound, method=zipfile.ZIP_DEFLATED), "it is compressed")
    assert_refused(write(path, sound, extra=[("archive/constants.pkl", b"\x80\x02).")]), "program of TorchScript")
    with pytest.warns(UserWarning, match="Duplicate"):
        write(path, sound, extra=[("archive/data.pkl", sound)])
    assert_refused(str(path), "two entries of one name")


@pytest.mark.filterwarnings("ignore")
def test_programs_of_torchscript(tmp_path):
    path = str(tmp_path / "w.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert_refused(path, "program of TorchScript")


def test_the_tar_files_of_long_ago(tmp_path):
    """The first format of torch, which its own reader unpacks to a folder when it is not told to be careful."""
    path = str(tmp_path / "w.pth")
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps({"protocol_version": 1000, "little_endian": True, "type_sizes": {}}, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("../pwned"))
    assert_refused(path, "truncated or no checkpoint")
    assert os.listdir(tmp_path) == ["w.pth"]
    assert not (tmp_path.parent / "pwned").exists()


class Call:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.system, "touch pwned"), (eval, "open('pwned', 'w')"), (getattr, "x"), (np.load, "x"), (torch.load, "x"),
     (torch.hub.load, "x"), (bytearray.fromhex, "00"), (print, "x"), (torch.jit.load, "x")],
)  # fmt: skip
def test_whatever_calls_something_is_refused(tmp_path, monkeypatch, zipped, function, argument):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": collections.OrderedDict(a=torch.ones(2)), "evil": Call(function, argument)}, "w.pth",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    assert_refused("w.pth", "is refused: it asks for|is truncated or no checkpoint")
    assert os.listdir(tmp_path) == ["w.pth"]
