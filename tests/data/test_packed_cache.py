"""The cache of packed annotations: whatever happens to it or to the json, the arrays are those of the json."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import resource
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed import (
    PackedAnnotations,
    PackedCoords,
    cache,
    load_packed,
    open_packed,
    save_packed,
)
from tests.data.test_packed import assert_same
from tests.data.tiny_coco import TinyCoco, tiny_annotations

FORK = multiprocessing.get_context("fork")


def must_not_be_called(path: Path) -> PackedAnnotations:
    raise AssertionError("packed again")


def packed_file(tiny: TinyCoco) -> Path:
    path = open_packed(tiny.ann_file, pack_coco_json).path
    assert path is not None
    return path


def test_a_flipped_bit_is_found_wherever_it_is(tiny: TinyCoco) -> None:
    path = packed_file(tiny)
    whole = path.read_bytes()
    key = path.name.split(".")[1]
    end_of_header = 20 + int.from_bytes(whole[8:16], "little")
    for position in [*range(end_of_header), *range(end_of_header, len(whole), 7)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=str(path)):
            load_packed(path, key=key)


def test_a_file_of_another_length_is_found(tiny: TinyCoco) -> None:
    path = packed_file(tiny)
    whole = path.read_bytes()
    for length in [*range(64), *range(64, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(path)):
            load_packed(path, key=path.name.split(".")[1])
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="should have"):
        load_packed(path, key=path.name.split(".")[1])


def test_another_byte_order_and_another_key_are_refused(tiny: TinyCoco, tmp_path: Path) -> None:
    packed = pack_coco_json(tiny.ann_file)
    foreign = np.dtype(np.float32).newbyteorder()
    save_packed(replace(packed, boxes=packed.boxes.astype(foreign)), tmp_path / "foreign")
    with pytest.raises(ValueError, match="another byte order"):
        load_packed(tmp_path / "foreign")
    save_packed(packed, tmp_path / "own", key="a")
    with pytest.raises(ValueError, match="something else"):
        load_packed(tmp_path / "own", key="b")


@pytest.mark.parametrize("damage", [b"", b"MRCNNPAK", b"no such thing" * 99])
def test_a_damaged_cache_is_made_again(tiny: TinyCoco, damage: bytes, caplog) -> None:
    path = packed_file(tiny)
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert_same(open_packed(tiny.ann_file, pack_coco_json), pack_coco_json(tiny.ann_file))
    assert str(path) in caplog.text
    assert path.read_bytes() == whole
    open_packed(tiny.ann_file, must_not_be_called)


def _open_in_process(ann_file: Path, log: Path, expected: bytes) -> None:
    def pack(path: Path) -> PackedAnnotations:
        with open(log, "a") as file:
            file.write("packed\n")
        time.sleep(0.2)
        return pack_coco_json(path)

    assert pickle.dumps(list(arrays_of(open_packed(ann_file, pack)))) == expected


def arrays_of(packed: PackedAnnotations) -> list[tuple[str, bytes]]:
    return [(name, array.tobytes()) for name, array in packed.arrays()]


def run_together(count: int, target: Callable, *args: object) -> None:
    processes = [FORK.Process(target=target, args=args) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count


def test_of_several_processes_one_makes_a_damaged_cache_again(tiny: TinyCoco, tmp_path: Path) -> None:
    path = packed_file(tiny)
    path.write_bytes(path.read_bytes()[:-1])
    expected = pickle.dumps(arrays_of(pack_coco_json(tiny.ann_file)))
    run_together(6, _open_in_process, tiny.ann_file, tmp_path / "log", expected)
    assert (tmp_path / "log").read_text() == "packed\n"


def test_writers_that_cannot_lock_disturb_nobody(tiny: TinyCoco, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "fcntl", None)
    expected = pickle.dumps(arrays_of(pack_coco_json(tiny.ann_file)))
    run_together(4, _open_in_process, tiny.ann_file, tmp_path / "log", expected)
    assert len(list(tiny.ann_file.parent.glob("*.packed"))) == 1
    open_packed(tiny.ann_file, must_not_be_called)


def test_after_a_killed_process_another_goes_on(tiny: TinyCoco, tmp_path: Path) -> None:
    folder = tiny.ann_file.parent
    process = FORK.Process(target=_hold_the_lock_and_die, args=(tiny.ann_file,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    left = [path.name for path in folder.iterdir() if path.name.endswith((".part", ".lock"))]
    assert len(left) == 2
    expected = pickle.dumps(arrays_of(pack_coco_json(tiny.ann_file)))
    run_together(3, _open_in_process, tiny.ann_file, tmp_path / "log", expected)
    assert (tmp_path / "log").read_text() == "packed\n"
    assert not [path.name for path in folder.iterdir() if path.name.endswith((".part", ".lock"))]


def _hold_the_lock_and_die(ann_file: Path) -> None:
    cache.os.replace = lambda *_: os._exit(9)  # the part is written, the file not yet in its place
    open_packed(ann_file, pack_coco_json)


def _open_on_a_full_disk(ann_file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    assert_same(open_packed(ann_file, pack_coco_json), pack_coco_json(ann_file))


def test_a_full_disk_leaves_nothing_behind(tiny: TinyCoco) -> None:
    before = sorted(tiny.ann_file.parent.iterdir())
    run_together(1, _open_on_a_full_disk, tiny.ann_file)
    assert sorted(tiny.ann_file.parent.iterdir()) == before


def test_an_error_of_the_json_is_raised_once(tiny: TinyCoco) -> None:
    calls = []

    def pack(path: Path) -> PackedAnnotations:
        calls.append(path)
        raise FileNotFoundError("an image is missing")

    with pytest.raises(FileNotFoundError, match="an image is missing"):
        open_packed(tiny.ann_file, pack)
    assert len(calls) == 1


def test_a_json_that_changes_while_it_is_packed(tiny: TinyCoco) -> None:
    changed = json.dumps(tiny.data | {"categories": [*tiny.data["categories"], {"id": 5, "name": "new"}]})

    def pack(path: Path) -> PackedAnnotations:
        path.write_text(changed)
        return pack_coco_json(path)

    packed = open_packed(tiny.ann_file, pack)
    assert len(packed.category_ids) == 4
    assert_same(packed, open_packed(tiny.ann_file, must_not_be_called))
    (tiny.ann_file).write_text(json.dumps(tiny.data))
    assert len(open_packed(tiny.ann_file, pack_coco_json).category_ids) == 3

    def never_the_same(path: Path) -> PackedAnnotations:
        path.write_text(path.read_text() + " ")
        return pack_coco_json(path)

    tiny.ann_file.write_text(json.dumps(tiny_annotations()) + "\n")
    with pytest.raises(ValueError, match="changes while it is read"):
        open_packed(tiny.ann_file, never_the_same)


def test_a_worker_maps_the_very_file_of_its_parent(tiny: TinyCoco) -> None:
    packed = open_packed(tiny.ann_file, pack_coco_json)
    sent = pickle.dumps(packed)
    again = pickle.loads(sent)
    assert_same(again, packed)
    save_packed(replace(pack_coco_json(tiny.ann_file), labels=packed.labels + 1), packed.path, key="other")
    with pytest.raises(ValueError, match="was replaced by another"):
        pickle.loads(sent)
    assert packed.labels.max() == 3, "a mapping goes on with what it has mapped"


# Stamps: what stands for the content of a large file.


@pytest.fixture
def hashes(monkeypatch) -> list[int]:
    """Every file counts as large and settled; the list grows by one whenever one is read for its hash."""
    calls: list[int] = []
    monkeypatch.setattr(cache, "_SMALL", 0)
    monkeypatch.setattr(cache, "_SETTLED", 0)
    real = cache._hash
    monkeypatch.setattr(cache, "_hash", lambda file: calls.append(1) or real(file))
    return calls


def test_a_settled_file_is_hashed_once(tiny: TinyCoco, hashes: list[int]) -> None:
    first = cache.content_hash(tiny.ann_file)
    assert [cache.content_hash(tiny.ann_file) for _ in range(3)] == [first] * 3
    assert len(hashes) == 1
    open_packed(tiny.ann_file, pack_coco_json)
    assert len(hashes) == 1


def write_again(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes in place; size, inode and time of the last write stay as they were."""
    status = path.stat()
    content = path.read_bytes()
    assert content.count(old) >= 1
    assert len(old) == len(new)
    with open(path, "r+b") as file:
        file.write(content.replace(old, new))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (status.st_size, status.st_ino, status.st_mtime_ns)


def test_a_rewritten_file_is_seen_though_its_times_were_set_back(tiny: TinyCoco, hashes: list[int]) -> None:
    before = open_packed(tiny.ann_file, pack_coco_json)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    write_again(tiny.ann_file, b'"kite"', b'"bite"')
    after = open_packed(tiny.ann_file, pack_coco_json)
    assert (before.category_names[0], after.category_names[0]) == ("kite", "bite")


def test_a_file_written_a_moment_ago_gets_no_stamp(tiny: TinyCoco, hashes: list[int], monkeypatch) -> None:
    """Not even the time of the last change differs when a file is written twice in one tick of the clock."""
    monkeypatch.setattr(cache, "_SETTLED", 10 * 10**9)
    real, frozen = os.fstat, {}

    def fstat(handle: int) -> os.stat_result:
        status = real(handle)
        return frozen.setdefault(status.st_ino, status)  # a clock that stands still

    monkeypatch.setattr(cache.os, "fstat", fstat)
    first = cache.content_hash(tiny.ann_file)
    write_again(tiny.ann_file, b'"kite"', b'"bite"')
    assert cache.content_hash(tiny.ann_file) != first
    assert len(hashes) == 2
    assert not list(tiny.ann_file.parent.glob(".*.stamp*"))


def test_another_clock_has_to_be_far_ahead() -> None:
    second = 10**9
    file = SimpleNamespace(st_dev=1, st_mtime_ns=50 * second, st_ctime_ns=100 * second)

    def clock(device: int, seconds: int) -> SimpleNamespace:
        return SimpleNamespace(st_dev=device, st_mtime_ns=seconds * second)

    assert [cache._is_settled(file, clock(1, at)) for at in (100, 102, 110, 4000)] == [False, False, True, True]
    assert [cache._is_settled(file, clock(2, at)) for at in (100, 110, 400, 4000)] == [False, False, False, True]


def test_a_damaged_stamp_is_no_stamp(tiny: TinyCoco, hashes: list[int]) -> None:
    truth = cache.content_hash(tiny.ann_file)
    (stamp,) = tiny.ann_file.parent.glob(".*.stamp")
    whole = stamp.read_bytes()
    for position in range(len(whole)):
        stamp.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert cache.content_hash(tiny.ann_file) == truth
        stamp.write_bytes(whole[:position])
        assert cache.content_hash(tiny.ann_file) == truth
    assert stamp.read_bytes() == whole


def test_a_stamp_beside_a_file_that_cannot_have_one(tiny: TinyCoco, hashes: list[int], monkeypatch) -> None:
    monkeypatch.setattr(cache, "_SETTLED_ELSEWHERE", 0)
    tiny.ann_file.parent.chmod(0o555)
    try:
        cache.content_hash(tiny.ann_file)
        cache.content_hash(tiny.ann_file)
    finally:
        tiny.ann_file.parent.chmod(0o755)
    assert len(hashes) == 1
    assert len(list(cache._user_folder().glob(".annotations.json.*.stamp"))) == 1


# Coordinates.


def coords_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 2000, (5000, 2)).astype(np.float32)
    cents = np.array([float(f"{n / 100:.2f}") for n in rng.integers(0, 65536, 10000)], np.float32).reshape(-1, 2)
    if kind == "mixed":
        cents[rng.integers(0, 5000, 300), 0] = rng.uniform(-50, 900, 300)
        cents[-1] = (-3, 1e5)
    kinds = {"whole": whole, "cents": cents, "mixed": cents, "none": cents[:0]}
    return kinds.get(kind, rng.uniform(0, 500, (5000, 2)).astype(np.float32))


@pytest.mark.parametrize(("kind", "size"), [("whole", 4), ("cents", 4), ("mixed", 5), ("any", 8), ("none", 0)])
def test_coordinates_are_kept_to_the_last_bit(kind: str, size: int) -> None:
    coords = coords_of(kind)
    packed = PackedCoords.pack(coords)
    assert sum(getattr(packed, item.name).nbytes for item in fields(packed)) <= size * len(coords) + 16
    np.testing.assert_array_equal(packed[:], coords)
    np.testing.assert_array_equal(packed[17:4000], coords[17:4000])
    picked = np.random.default_rng(1).integers(0, max(len(coords), 1), 99)[: len(coords)]
    np.testing.assert_array_equal(packed.take(picked), coords[picked])
    assert packed.take(picked).dtype == np.float32


def test_every_hundredth_is_the_number_that_a_parser_gives() -> None:
    coords = np.array([float(f"{n // 100}.{n % 100:02d}") for n in range(65536)], dtype=np.float32).reshape(-1, 2)
    packed = PackedCoords.pack(coords)
    assert packed.codes.dtype == np.uint16
    assert not len(packed.apart)
    np.testing.assert_array_equal(packed[:], coords)


def test_packing_logs_who_waits(tiny: TinyCoco, caplog) -> None:
    with open(tiny.ann_file.parent / ".held.lock", "wb") as held:
        cache.fcntl.flock(held, cache.fcntl.LOCK_EX)
        holder = FORK.Process(target=time.sleep, args=(0.3,))  # has the lock by inheritance
        holder.start()
    with caplog.at_level(logging.INFO):
        file, is_alone = cache._take_lock(tiny.ann_file.parent / ".held.lock")
    file.close()
    holder.join()
    assert is_alone
    assert "Waiting for another process that writes held" in caplog.text
