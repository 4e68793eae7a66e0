"""The download scripts against a server on this machine: resume, checksums, room on the disk, parts, and failures."""

from __future__ import annotations

import hashlib
import http.server
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FETCHERS = ("wget", "curl")
TOOLS = ("bash", "md5sum", "df", "awk", "grep", "tr", "wc", "cat", "mkdir", "basename", "dirname")
ARCHIVES = {
    "train": "zips/train2017.zip",
    "val": "zips/val2017.zip",
    "annotations": "annotations/annotations_trainval2017.zip",
}

AWKWARD = (
    'it\'s "it"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "-rf",
    "two\nlines",
    "ü é 漢",
    "* ?[a]",
    "~",
    "a\\b",
)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(tool for tool in TOOLS if not shutil.which(tool))}"
)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as real servers do, and writes down what was asked for."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-").group(1))
        path = Path(self.directory, self.path.lstrip("/"))
        self.server.asked.append((path.name, start))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:])


class Mirror:
    """A server with tiny archives and weights, and copies of the scripts with their hashes.

    Args:
        folder: where all of it lies.
        fetcher: the program that the scripts find, wget or curl.
    """

    def __init__(self, folder: Path, fetcher: str) -> None:
        self.folder, self.served, self.target = folder, folder / "served", folder / "a folder" / "data"
        (folder / "scripts").mkdir()
        for name in ("download_dataset.sh", "download_weights.sh", "scripts/download_lib.sh", "scripts/unpack_zip.py"):
            shutil.copy(REPOSITORY / name, folder / name)
        hashes = []
        for name in ARCHIVES.values():
            path = self.served / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"{path.stem}/file", name * 1000)
            hashes.append(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n")
        (folder / "hashes.md5").write_text("".join(hashes))
        (self.served / "R-50.pkl").write_bytes(b"weights" * 1000)
        digest = hashlib.md5(b"weights" * 1000).hexdigest()
        (folder / "weights.md5").write_text(f"{digest}  R-50.pkl\n")
        self.programs = folder / "bin"
        self.programs.mkdir()
        for tool in (*TOOLS, fetcher):
            (self.programs / tool).symlink_to(shutil.which(tool))
        (self.programs / "python3").symlink_to(sys.executable)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=self.served))
        self.server.asked = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self, *arguments, script="download_dataset.sh", **variables):
        address = f"http://127.0.0.1:{self.server.server_port}"
        environment = {"PATH": str(self.programs), "COCO_URL": address, "WEIGHTS_URL": address, "no_proxy": "127.0.0.1"}
        environment |= {"HOME": str(self.folder), "LC_ALL": "C"} | variables
        return subprocess.run(
            ["bash", str(self.folder / script), *map(str, arguments)],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def stub(self, name: str, text: str) -> None:
        """Another program under the name of one that the scripts call."""
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (self.programs / name).chmod(0o755)


@pytest.fixture(params=FETCHERS)
def mirror(request, tmp_path):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    mirror = Mirror(tmp_path, request.param)
    yield mirror
    mirror.server.shutdown()


def test_all_of_it_is_fetched_checked_and_unpacked_once(mirror):
    done = mirror.run(mirror.target)
    assert done.returncode == 0, done.stderr
    assert "DOWNLOAD PASSED" in done.stdout
    assert "EXTRACTION COMPLETE" in done.stdout
    for name in ARCHIVES.values():
        assert (mirror.target / Path(name).stem / "file").read_text() == name * 1000
    mirror.server.asked.clear()
    (mirror.target / "val2017" / "file").unlink()
    assert mirror.run(mirror.target).returncode == 0
    assert mirror.server.asked == [], "what is intact is not fetched again"
    assert (mirror.target / "val2017" / "file").exists()


def test_parts(mirror):
    done = mirror.run("--part", "val", mirror.target, "--part", "annotations")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in mirror.target.iterdir()) == [
        "annotations_trainval2017", "annotations_trainval2017.zip", "val2017", "val2017.zip",
    ]  # fmt: skip
    assert mirror.run(mirror.target, "--part", "val", "verify").returncode == 0
    whole = mirror.run(mirror.target, "verify")
    assert whole.returncode == 1
    assert "DOWNLOAD FAILED HASHCHECK: train2017.zip in" in whole.stderr
    assert mirror.run(mirror.target, "extract", "--part", "val").returncode == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--part", "test", "d"), ("d", "--part"), ("d", "e"), ("d", "--parts", "val"), ("verify",)]
)
def test_faulty_arguments(mirror, arguments):
    done = mirror.run(*arguments)
    assert done.returncode == 2
    assert "Usage: bash download_dataset.sh DIR [--part train|val|annotations ...]" in done.stderr
    assert mirror.server.asked == []


def test_an_interrupted_download_goes_on(mirror):
    whole = (mirror.served / ARCHIVES["val"]).read_bytes()
    mirror.target.mkdir(parents=True)
    (mirror.target / "val2017.zip").write_bytes(whole[:700])
    done = mirror.run(mirror.target, "--part", "val")
    assert done.returncode == 0, done.stderr
    assert ("val2017.zip", 700) in mirror.server.asked
    assert ("val2017.zip", 0) not in mirror.server.asked
    assert (mirror.target / "val2017.zip").read_bytes() == whole


def test_a_wrong_hash_fails_before_anything_is_unpacked(mirror):
    hashes = mirror.folder / "hashes.md5"
    hashes.write_text(re.sub(r"\w{32}  train", "0" * 32 + "  train", hashes.read_text()))
    done = mirror.run(mirror.target)
    assert done.returncode == 1
    assert "DOWNLOAD FAILED HASHCHECK: train2017.zip in" in done.stderr
    assert "delete them and run this again" in done.stderr
    assert not (mirror.target / "val2017").exists()


def test_a_file_that_the_server_lacks_fails(mirror):
    (mirror.served / ARCHIVES["val"]).unlink()
    done = mirror.run(mirror.target, "--part", "val")
    assert done.returncode == 1
    assert "zips/val2017.zip cannot be fetched; run this again" in done.stderr
    assert "EXTRACTION" not in done.stdout


def test_a_full_disk_is_found_before_the_download(mirror):
    mirror.stub("df", "echo Filesystem; echo /dev/disk 100 99 1 99% /")
    with (mirror.served / ARCHIVES["train"]).open("ab") as file:
        file.truncate(5 << 20)
    done = mirror.run(mirror.target, "--part", "train")
    assert done.returncode == 1
    assert re.search(r"data needs 10 MB more, but has 0 MB free; choose another folder", done.stderr)
    assert not (mirror.target / "train2017.zip").exists()


def test_an_archive_that_cannot_be_unpacked_fails(mirror):
    mirror.target.mkdir(parents=True)
    (mirror.target / "val2017.zip").write_bytes(b"no archive")
    done = mirror.run(mirror.target, "extract", "--part", "val")
    assert done.returncode == 1
    assert "val2017.zip cannot be unpacked" in done.stderr


def test_an_archive_that_leads_out_of_the_folder_fails(mirror):
    mirror.target.mkdir(parents=True)
    with zipfile.ZipFile(mirror.target / "val2017.zip", "w") as archive:
        archive.writestr("val2017/../../../pwned", "x")
    done = mirror.run(mirror.target, "extract", "--part", "val")
    assert done.returncode == 1
    assert "does not lie inside the archive's own folder" in done.stderr
    assert [path.name for path in mirror.target.iterdir()] == ["val2017.zip"]


def test_folders_with_awkward_names(mirror):
    for name in AWKWARD:
        done = mirror.run(mirror.folder / name, "--part", "val")
        assert done.returncode == 0, done.stderr
        assert (mirror.folder / name / "val2017" / "file").exists()
        assert mirror.run(mirror.folder / name, script="download_weights.sh").returncode == 0
        assert (mirror.folder / name / "R-50.pkl").exists()
    assert not list(mirror.folder.rglob("pwned"))


def test_another_folder_of_that_name_elsewhere(mirror, monkeypatch):
    (mirror.folder / "elsewhere" / "data").mkdir(parents=True)
    (mirror.folder / "data").mkdir()
    done = mirror.run("data", "--part", "val", CDPATH=str(mirror.folder / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert (mirror.folder / "data" / "val2017.zip").exists()
    assert not any((mirror.folder / "elsewhere" / "data").iterdir())


def test_a_missing_program_is_named(mirror):
    (mirror.programs / "python3").unlink()
    done = mirror.run(mirror.target)
    assert done.returncode == 1
    assert "python3 is needed and was not found" in done.stderr
    for fetcher in FETCHERS:
        (mirror.programs / fetcher).unlink(missing_ok=True)
    done = mirror.run(script="download_weights.sh")
    assert done.returncode == 1
    assert "wget or curl is needed" in done.stderr


def test_weights(mirror):
    done = mirror.run(mirror.target, script="download_weights.sh")
    assert done.returncode == 0, done.stderr
    weights = mirror.target / "R-50.pkl"
    assert f"DOWNLOAD PASSED: {weights}" in done.stdout
    mirror.server.asked.clear()
    assert mirror.run(mirror.target, script="download_weights.sh").returncode == 0
    assert mirror.server.asked == []
    weights.write_bytes(weights.read_bytes()[:300])
    assert mirror.run(mirror.target, script="download_weights.sh").returncode == 0
    assert mirror.server.asked[-1] == ("R-50.pkl", 300)
    weights.write_bytes(b"x" * weights.stat().st_size)
    done = mirror.run(mirror.target, script="download_weights.sh")
    assert done.returncode == 1
    assert f"DOWNLOAD FAILED HASHCHECK: delete {weights} and run this again" in done.stderr
    assert mirror.run("--help", script="download_weights.sh").returncode == 2
