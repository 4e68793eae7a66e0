"""Pickles of arrays are read whatever wrote them; whatever asks for more is refused, and nothing runs."""

from __future__ import annotations

import collections
import copyreg
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from maskrcnn_benchmark.checkpoint import pickle_program
from maskrcnn_benchmark.checkpoint.unpickle import read_arrays
from tests.checkpoint.foreign import write_python2

ARRAYS = {
    "weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.5,
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">i4"),
    "half": np.array([0.5, -2], np.float16),
    "bytes": np.array([0, 10, 13, 39, 92, 255], np.uint8),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "number": np.array(3.5, np.float32),
}


def assert_arrays(found):
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert isinstance(found[name], np.ndarray)
        assert found[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], array, strict=False)
        assert found[name].shape == array.shape


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path, protocol):
    file = tmp_path / "file.pkl"
    file.write_bytes(pickle.dumps(ARRAYS, protocol))
    assert_arrays(read_arrays(str(file)))


@pytest.mark.parametrize("protocol", range(3))
def test_arrays_of_python_2(tmp_path, protocol):
    file = tmp_path / "file.pkl"
    data = {name: array for name, array in ARRAYS.items() if name not in ("fortran", "big_endian")}
    write_python2(file, {"blobs": data, "cfg": "A: 1\n"}, protocol)
    found = read_arrays(str(file))
    assert found["cfg"] == "A: 1\n"
    for name, array in data.items():
        np.testing.assert_array_equal(found["blobs"][name], array)
        assert found["blobs"][name].dtype == array.dtype


@pytest.mark.parametrize("protocol", range(5))
def test_plain_containers_and_numbers(tmp_path, protocol):
    data = collections.OrderedDict(
        author="somebody", count=3, scale=np.float64(0.5), flag=True, nothing=None, raw=b"\x00\xff", none=b"",
        inner=collections.OrderedDict(a=np.ones(2, np.float32)), sizes=[1, (2, 3)],
    )  # fmt: skip
    file = tmp_path / "file.pkl"
    file.write_bytes(pickle.dumps(data, protocol))
    found = read_arrays(str(file))
    assert {name: value for name, value in found.items() if name != "inner"} == {
        name: value for name, value in data.items() if name != "inner"
    }
    np.testing.assert_array_equal(found["inner"]["a"], np.ones(2))


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


class Plain:
    """Pickles by NEWOBJ with its own class."""


def is_named(module, name):
    return rf"file\.pkl is refused: it asks for {module}\.{name}, and .* only$"


HARMFUL = {
    "system": (Call(os.system, "touch pwned"), is_named("posix|nt", "system").replace("posix|nt", "(posix|nt)")),
    "eval": (Call(eval, "open('pwned', 'w')"), is_named("(builtins|__builtin__)", "eval")),
    "open": (Call(open, "pwned", "w"), is_named("(_?io|__builtin__)", "open")),
    "getattr": (Call(getattr, "x", "upper"), is_named("(builtins|__builtin__)", "getattr")),
    "numpy.load": (Call(np.load, "evil.npy"), is_named(r"numpy(\.\w+)*", "load")),
    "numpy.fromfile": (Call(np.fromfile, "/etc/passwd"), is_named(r"numpy(\.\w+)*", "fromfile")),
    "class": (Plain(), is_named(r"tests\.checkpoint\.test_unpickle|test_unpickle", "Plain").replace(
        r"tests\.checkpoint\.test_unpickle|test_unpickle", r"[\w.]*test_unpickle")),
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("what", HARMFUL)
def test_whatever_calls_something_is_refused_by_name(tmp_path, monkeypatch, what, protocol):
    monkeypatch.chdir(tmp_path)
    payload, words = HARMFUL[what]
    if protocol < 2 and what == "class":
        words = is_named("copy_?reg", "_reconstructor")
    (tmp_path / "file.pkl").write_bytes(pickle.dumps({"w": np.ones(2), "evil": payload}, protocol))
    with pytest.raises(ValueError, match=words) as error:
        read_arrays("file.pkl")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["file.pkl"]


def opcodes(*parts):
    """A pickle of protocol 2 by hand."""
    return b"\x80\x02" + b"".join(part if isinstance(part, bytes) else part.encode("latin-1") for part in parts) + b"."


RECONSTRUCT = "cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = "cnumpy\nndarray\n"
DTYPE = "cnumpy\ndtype\n"
F4 = f"{DTYPE}(X\x02\x00\x00\x00f4K\x00K\x01tR"
EMPTY_ARRAY = f"{RECONSTRUCT}({NDARRAY}(K\x00tC\x01btR"
BY_HAND = {
    # the right globals, the wrong way
    "an array of objects": (pickle.dumps({"a": np.array([{}, None], object)}, 2), "dtype 'O8'"),
    "an array of records": (pickle.dumps({"a": np.zeros(2, [("x", "f4")])}, 2), "dtype 'V4'"),
    "an array of strings": (pickle.dumps({"a": np.array(["x"])}, 2), "dtype 'U1'"),
    "a date": (pickle.dumps({"a": np.array(["2020-01-01"], "M8[D]")}, 2), "dtype 'M8'"),
    "ndarray called": (opcodes(NDARRAY, "(K\x02tR"), "no pickled weights"),
    "ndarray made": (opcodes(NDARRAY, "(K\x02t\x81"), "no pickled weights"),
    "a dtype by another name": (opcodes(DTYPE, "(cos\nsystem\ntR"), "asks for os.system"),
    "a state that is no tuple": (opcodes(EMPTY_ARRAY, "}b"), "in an unknown way"),
    "a negative size": (opcodes(EMPTY_ARRAY, "(K\x01J\xff\xff\xff\xff\x85", F4, "\x89C\x00tb"),
                        "shape"),
    "fewer bytes than numbers": (opcodes(EMPTY_ARRAY, "(K\x01K\x09\x85", F4, "\x89C\x04abcdtb"),
                                 "has 4 bytes"),
    "a list for the bytes": (opcodes(EMPTY_ARRAY, "(K\x01K\x01\x85", F4, "\x89]K\x01atb"),
                             "made of a list"),
    "attributes of a function": (opcodes(RECONSTRUCT, "}X\x08\x00\x00\x00__code__K\x01sb"), "state of a function"),
    "slots of a function": (opcodes(DTYPE, "N}X\x05\x00\x00\x00_callK\x01s\x86b"),
                            "state of a function"),
    "another codec": (opcodes("c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR"), "'rot13'"),
    "bytes of a number": (opcodes("c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR"), "calls bytes with arguments"),
    "an extension code": (opcodes("\x82\x01"), "opcode EXT1"),
    "a persistent id": (opcodes("Pid\n"), "no pickled weights"),
    "an instance of old": (opcodes("(ios\nsystem\n"), "asks for os.system"),
    "an object of old": (opcodes("(cos\nsystem\nX\x02\x00\x00\x00lso"), "asks for os.system"),
    "a giant memo": (opcodes(b"}r", struct.pack("<I", 0xFFFFFFFF)), "number 4294967295"),
    "a giant string": (opcodes(b"T", struct.pack("<i", 0x7FFFFFFF), b"x"), "no pickled weights"),
    "a string beyond any file": (opcodes(b"\x8d", b"\xff" * 8, b"x"), "it ends early"),
    "a name of two lines": (opcodes("X\x05\x00\x00\x00nu\nmpX\x04\x00\x00\x00load\x93"), r"asks for 'nu\\nmp\.load'"),
    "a list": (pickle.dumps([1, 2]), "holds a list"),
    "an array alone": (pickle.dumps(np.ones(2)), "not a dict of weights"),
    "nothing": (b"", "no pickled weights"),
    "noise": (bytes(range(256)), "no pickled weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", BY_HAND)
def test_misused_globals_and_damaged_files(tmp_path, what):
    content, words = BY_HAND[what]
    (tmp_path / "file.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_arrays(str(tmp_path / "file.pkl"))
    assert str(tmp_path / "file.pkl") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_registered_extension_is_refused_too(tmp_path):
    """The cache of copyreg hands out objects without asking by name."""
    copyreg.add_extension("posix", "system", 0x77)
    copyreg._extension_cache[0x77] = os.system
    try:
        command = f"touch {tmp_path}/pwned"
        (tmp_path / "file.pkl").write_bytes(opcodes(b"\x82\x77(X", struct.pack("<i", len(command)), command, "tR"))
        with pytest.raises(ValueError, match="EXT1"):
            read_arrays(str(tmp_path / "file.pkl"))
        assert os.listdir(tmp_path) == ["file.pkl"]
    finally:
        copyreg.remove_extension("posix", "system", 0x77)
        copyreg._extension_cache.pop(0x77, None)


def test_a_file_cannot_change_the_reader(tmp_path):
    """An OrderedDict's attributes are dropped, and a second file is read as the first."""
    evil = Call(collections.OrderedDict, [["a", np.ones(2, np.float32)]], state={"items": "not a method"})
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(evil, 2))
    for _ in range(2):
        np.testing.assert_array_equal(read_arrays(str(tmp_path / "file.pkl"))["a"], np.ones(2))


def test_truncation_at_every_byte(tmp_path):
    content = pickle.dumps({"a": np.ones(3, np.float32), "b": {"c": np.ones((2, 2))}}, 2)
    for length in range(len(content)):
        (tmp_path / "file.pkl").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"file\.pkl"):
            read_arrays(str(tmp_path / "file.pkl"))


def test_single_damaged_bytes_are_read_or_refused(tmp_path):
    content = pickle.dumps({"a": np.ones(3, np.float32), "b": "text"}, 2)
    generator = np.random.default_rng(3)
    path = tmp_path / "file.pkl"
    outcomes = collections.Counter()
    for _ in range(500):
        damaged = bytearray(content)
        damaged[generator.integers(len(content))] = generator.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_arrays(str(path))
            outcomes["read"] += 1
        except ValueError as error:
            outcomes["refused" if str(path) in str(error) else "unclear"] += 1
    assert set(outcomes) == {"read", "refused"}


TEXT = b"X" + struct.pack("<I", 50000) + b"x" * 50000
ENCODED = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
BYTE = f"{DTYPE}(X\x02\x00\x00\x00u1K\x00K\x01tR".encode()
COPIED = EMPTY_ARRAY.encode() + b"(K\x01M\x50\xc3\x85" + BYTE + b"\x89h\x01tb"
ORDERED = b"ccollections\nOrderedDict\nh\x01\x85R"
ENDLESS = b"\x8a\x09" + b"\xff" * 8 + b"\x00"
GREEDY = {
    "one text encoded again and again": opcodes(TEXT, b"q\x010(", ENCODED * 500, b"l0"),
    "one array copied again and again": opcodes(TEXT, b"q\x010(", COPIED * 500, b"l0"),
    "one dict copied again and again": opcodes(b"](", b"K\x01K\x02\x86" * 9000, b"eq\x010(", ORDERED * 2000, b"l0"),
    "an array larger than its bytes": opcodes(EMPTY_ARRAY, "(K\x01\x8a\x05\0\0\0\0\x01\x85", F4, "\x89C\x04abcdtb"),
    "an array with sides beyond numbers": opcodes(EMPTY_ARRAY, "(K\x01", ENDLESS * 9, "\x87", "tb"),
    "tuples nested a hundred thousand deep": opcodes(b"})", b"\x85" * 100000, b"K\x01s"),
    "tuples remembered and nested": opcodes(b"})", b"q\x01h\x01\x85" * 1000, b"K\x01s"),
    "more dicts than any file has arrays": opcodes(b"(", b"}" * 60000, b"l"),
    "a number of a million digits": opcodes(b"}L" + b"9" * 1000000 + b"L\nK\x01s"),
}  # fmt: skip


@pytest.mark.parametrize("what", GREEDY)
def test_files_that_ask_for_more_than_they_are(tmp_path, monkeypatch, what):
    """Each would take gigabytes or crash the interpreter: refused in a sentence, and with little memory."""
    monkeypatch.setattr(pickle_program, "MOST_OPCODES", 60000)  # to count to half a million takes seconds
    path = tmp_path / "file.pkl"
    path.write_bytes(GREEDY[what])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"file\.pkl (is refused|is truncated)") as error:
            read_arrays(str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 400
    assert peak < 8 * len(GREEDY[what]) + (8 << 20)


def test_what_honest_files_share_is_within_the_budget(tmp_path):
    """Arrays of one object, strings of one interpreter, and thousands of scalars."""
    array = np.ones(1000, np.float32)
    data = {f"a{number}": array for number in range(50)} | {f"s{number}": np.float64(number) for number in range(5000)}
    data["order"] = collections.OrderedDict((f"k{number}", number) for number in range(5000))
    for protocol in range(6):
        (tmp_path / "file.pkl").write_bytes(pickle.dumps(data, protocol))
        found = read_arrays(str(tmp_path / "file.pkl"))
        assert found["s4999"] == 4999
        assert found["order"] == data["order"]
