"""Archives made to do harm: unpacked below the folder, or refused before anything is written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import unpack_zip

SCRIPT = Path(unpack_zip.__file__)


def make(path, *entries, method=zipfile.ZIP_DEFLATED):
    """Write an archive of (name, content, mode); a name is written as it is."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.external_attr, info.create_system = name, mode << 16, 3
            info.compress_type = method
            archive.writestr(info, content)
    return path


@pytest.fixture
def world(tmp_path):
    """A folder to unpack into, between files that must stay as they are."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("untouched")
    yield tmp_path
    assert (tmp_path / "secret").read_text() == "untouched"
    assert {path.name for path in tmp_path.iterdir()} <= {"inside", "secret", "a.zip", "elsewhere"}


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_sound_archives(world):
    entries = [("val/", b"", 0), ("val/a b.jpg", b"pixels" * 999, 0o644), ("val/ü'$(x)`.txt", b"", 0o777)]
    make(world / "a.zip", *entries, ("set/uid", b"x", stat.S_IFREG | 0o6777), ("-rf", b"y", 0))
    for _ in range(2):  # again over what is there
        assert unpack_zip.unpack(str(world / "a.zip"), str(world / "inside")) == 4
    assert everything(world / "inside") == ["-rf", "set", "set/uid", "val", "val/a b.jpg", "val/ü'$(x)`.txt"]
    assert (world / "inside/val/a b.jpg").read_bytes() == b"pixels" * 999
    assert stat.S_IMODE((world / "inside/set/uid").stat().st_mode) == 0o644


HARMFUL = {
    "up": ("../secret", b"x", 0),
    "up from below": ("val/../../secret", b"x", 0),
    "absolute": ("/tmp/pwned", b"x", 0),
    "home": ("//server/share", b"x", 0),
    "here": ("./secret", b"x", 0),
    "drive": ("C:/secret", b"x", 0),
    "backslashes": ("..\\secret", b"x", 0),
    "a drive with backslashes": ("C:\\secret", b"x", 0),
    "a line end": ("a\n../secret", b"x", 0),
    "a null byte": ("a\0/../../secret", b"x", 0),
    "a link": ("link", b"../secret", stat.S_IFLNK | 0o777),
    "a device": ("null", b"", stat.S_IFCHR | 0o666),
    "a pipe": ("pipe", b"", stat.S_IFIFO | 0o666),
    "a socket": ("socket", b"", stat.S_IFSOCK | 0o666),
    "nothing": ("", b"x", 0),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_harmful_entries_are_refused_before_anything_is_written(world, what):
    make(world / "a.zip", ("first", b"x", 0), HARMFUL[what])
    with pytest.raises(ValueError, match=r"a\.zip is (refused: its entry|damaged)") as error:
        unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
    assert "\n" not in str(error.value)
    assert everything(world / "inside") == []


def test_a_link_and_a_file_behind_it(world):
    make(world / "a.zip", ("door", b"..", stat.S_IFLNK | 0o777), ("door/secret", b"x", 0))
    with pytest.raises(ValueError, match="link or a device"):
        unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
    assert everything(world / "inside") == []


def test_links_that_are_there_are_not_followed(world):
    (world / "elsewhere").mkdir()
    (world / "inside/val").symlink_to(world / "elsewhere")
    make(world / "a.zip", ("val/a", b"x", 0))
    with pytest.raises(ValueError, match=r"a link to .*elsewhere"):
        unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
    assert everything(world / "elsewhere") == []
    (world / "inside/val").unlink()
    (world / "inside/val").mkdir()
    (world / "inside/val/a").symlink_to(world / "secret")
    assert unpack_zip.unpack(str(world / "a.zip"), str(world / "inside")) == 1  # the link is replaced, not followed
    assert not (world / "inside/val/a").is_symlink()


def test_one_name_twice(world):
    for pair in (("a/b", "a/b"), ("a", "A"), ("a/", "a")):
        with pytest.warns(UserWarning, match="Duplicate") if pair[0] == pair[1] else pytest.MonkeyPatch.context():
            make(world / "a.zip", *((name, b"" if name.endswith("/") else b"x", 0) for name in pair))
        with pytest.raises(ValueError, match="twice"):
            unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))


def test_bombs(world, monkeypatch):
    make(world / "a.zip", ("big", b"\0" * (64 << 20), 0))
    assert (world / "a.zip").stat().st_size < 1 << 20
    usage = type("Usage", (), {"free": 63 << 20})
    monkeypatch.setattr(unpack_zip.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"unpacks to 64 MB, but .*inside has 63 MB free"):
        unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
    assert everything(world / "inside") == []


def test_entries_that_lie_over_one_another(world):
    """Many names for one packed block: a small file that unpacks to many times what a compressor can do."""
    make(world / "a.zip", ("a", os.urandom(5000), 0), ("b", b"x", 0))
    data = bytearray((world / "a.zip").read_bytes())
    first, second = (data.find(b"PK\x01\x02", start) for start in (0, data.find(b"PK\x01\x02") + 1))
    for at, length in ((10, 2), (16, 12), (42, 4)):  # method, CRC and sizes, place: b now is what a is
        data[second + at : second + at + length] = data[first + at : first + at + length]
    (world / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="lie over one another"):
        unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))


def test_a_size_that_is_a_lie_or_content_that_was_changed(world):
    make(world / "a.zip", ("a", b"x" * 5000, 0), method=zipfile.ZIP_STORED)
    data = (world / "a.zip").read_bytes()
    for wrong in (data.replace(b"x" * 5000, b"x" * 4999 + b"y"), data[:3000], b"", b"PK\x05\x06" + b"\0" * 10):
        (world / "a.zip").write_bytes(wrong)
        with pytest.raises(ValueError, match=r"a\.zip is damaged or no zip file"):
            unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
        assert everything(world / "inside") == []


def test_flipped_bits_write_nothing_outside(world):
    make(world / "a.zip", ("val/a", b"x" * 50, 0), ("b", b"y" * 50, stat.S_IFREG | 0o644), method=zipfile.ZIP_STORED)
    whole = (world / "a.zip").read_bytes()
    refused = []
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        (world / "a.zip").write_bytes(data)
        try:
            unpack_zip.unpack(str(world / "a.zip"), str(world / "inside"))
        except (ValueError, OSError) as error:
            refused.append(str(error))
    assert len(refused) > len(whole) / 4
    assert all(refused)


def test_the_command(world):
    make(world / "a.zip", ("val/a", b"x", 0))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-I", str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, cwd=world
        )

    done = run("a.zip", "inside")
    assert (done.returncode, done.stdout) == (0, "a.zip: 1 files\n")
    make(world / "a.zip", ("../secret", b"x", 0))
    done = run("a.zip", "inside")
    assert done.returncode == 1
    assert done.stderr == "a.zip is refused: its entry '../secret' does not lie inside the archive's own folder\n"
    assert run().returncode == 2
