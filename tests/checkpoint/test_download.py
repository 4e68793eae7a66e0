"""Downloads from a local server: whole, checked, resumed, once for all processes, and clear about what is missing."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import urllib.error
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.checkpoint import Checkpointer, DetectronCheckpointer, download, web
from maskrcnn_benchmark.checkpoint.download import cached_path, fetch
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.paths_catalog import ModelCatalog
from tests.checkpoint.foreign import Skeleton

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content`` under every path, as ``server.mode`` says."""

    protocol_version = "HTTP/1.0"  # a closed connection ends the content

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers) | {"path": self.path})
        mode = server.modes.pop(0) if server.modes else "whole"
        if mode == "missing":
            self.send_error(404, "Not Found")
            return
        if mode == "redirect" or "://" in mode:
            self.send_response(302)
            self.send_header("Location", mode if "://" in mode else "/elsewhere.pth")
            self.end_headers()
            return
        start = 0
        wanted = self.headers.get("Range", "")
        if wanted and server.tag and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            end = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start - (mode == 'shifted')}-{end}/{end + 1}")
        if mode != "endless":
            self.send_header("Content-Length", str(10**13 if mode == "huge" else len(server.content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        rest = server.content[start:]
        self.wfile.write(rest[: len(rest) // 2] if mode == "cut" else rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A server in a thread; ``modes`` are used up request by request: whole, cut, missing, redirect, an address to
    redirect to, huge, endless or shifted.
    """
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.tag, server.modes, server.requests = CONTENT, '"one"', [], []
        server.url = f"http://127.0.0.1:{server.server_address[1]}/models/R-50.pkl"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


def files_in(folder):
    return sorted(name for _, _, names in os.walk(folder) for name in names if not name.endswith(".lock"))


def test_a_file_is_downloaded_once_and_noted(server, cache):
    path = fetch(server.url)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache / "weights")
    assert path.name == "R-50.pkl"
    assert files_in(cache) == ["R-50.pkl", "R-50.pkl.sha256"]
    assert path.with_name("R-50.pkl.sha256").read_text() == f"{SHA256}  R-50.pkl\n"  # sha256sum -c reads it
    assert fetch(server.url) == path
    assert len(server.requests) == 1


def test_places_in_the_cache(cache, monkeypatch):
    base = cache / "weights"
    url = ModelCatalog.get("ImageNetPretrained/MSRA/R-50")
    assert cached_path(url) == base / "dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl"
    everything = {cached_path(ModelCatalog.get(name)) for name in ModelCatalog.names()}
    assert len(everything) == len(ModelCatalog.names())
    for url in (
        "http://x/../../../etc/passwd",
        "http://x/a/..//.ssh/id",
        "http://x/%2e%2e/a",
        "http://../a",
        "http://x:1/a\\b",
    ):
        path = cached_path(url)
        assert ".." not in path.parts
        assert not any(part.startswith(".") for part in path.relative_to(base).parts)
        assert path.resolve().is_relative_to(base.resolve())
    assert cached_path("http://x/a?b=1") != cached_path("http://x/a?b=2")
    monkeypatch.delenv("MASKRCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cached_path("http://x/a").as_posix() == "/somewhere/maskrcnn_benchmark/weights/x/a"


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_given_checksum_holds(server, cache, algorithm):
    right = hashlib.new(algorithm, CONTENT).hexdigest()
    path = fetch(f"{server.url}#{algorithm}={right}")
    assert path.read_bytes() == CONTENT
    path.unlink()
    wrong = right[::-1]
    with pytest.raises(ValueError, match=rf"R-50\.pkl has {algorithm} {right} instead of {wrong}, and was not kept"):
        fetch(f"{server.url}#{algorithm}={wrong}")
    assert "R-50.pkl" not in files_in(cache)
    assert not any(name.endswith(".part") for name in files_in(cache))
    with pytest.raises(ValueError, match="a checksum is written"):
        fetch(f"{server.url}#sha1=abc")


def test_a_known_checksum_is_the_catalogues(server):
    url = ModelCatalog.get("ImageNetPretrained/MSRA/R-50")
    assert ModelCatalog.checksum(url) == "md5=b19105fdd7baafb40480251377de18f2"
    assert ModelCatalog.checksum("https://elsewhere.org/ImageNetPretrained/MSRA/R-50.pkl") == ""
    with pytest.raises(ValueError, match="instead of b19105fdd7baafb40480251377de18f2"):
        fetch(server.url, known=ModelCatalog.checksum(url))


def test_a_damaged_file_is_named_and_fetched_again(server, monkeypatch):
    warnings = []
    monkeypatch.setattr(download.logger, "warning", lambda message, *args: warnings.append(message % args))
    path = fetch(server.url)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(server.url).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert any(f"{path} is damaged" in warning for warning in warnings)


def test_a_file_put_there_by_hand_needs_no_network(cache):
    url = "http://nowhere.invalid/a/model.pth"
    path = cached_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"abc")
    assert fetch(url) == path
    path.write_bytes(b"abd")  # changed since it was first used
    with pytest.raises(OSError, match="cannot be downloaded"):
        fetch(url)


def test_a_broken_download_goes_on_where_it_stopped(server):
    server.modes = ["cut", "cut"]
    path = fetch(server.url)
    assert path.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [request.get("Range") for request in server.requests] == [
        None,
        f"bytes={half}-",
        f"bytes={half + half // 2}-",
    ]


def test_a_later_run_goes_on_too(server, cache):
    server.modes = ["cut"] * 3
    with pytest.raises(OSError, match="bytes arrived"):
        fetch(server.url)
    assert "R-50.pkl" not in files_in(cache)
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={len(CONTENT) * 7 // 8}-"
    assert files_in(cache) == ["R-50.pkl", "R-50.pkl.sha256"]


@pytest.mark.parametrize("tag", ['"two"', 'W/"one"', ""])
def test_content_that_may_have_changed_is_fetched_from_the_start(server, tag):
    server.modes = ["cut"] * 3
    if not tag.startswith('"'):
        server.tag = tag
    with pytest.raises(OSError, match="bytes arrived"):
        fetch(server.url)
    server.modes, server.content, server.tag = [], CONTENT[::-1], tag
    assert fetch(server.url).read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_is_thrown_away(server):
    server.modes = ["cut"] * 3
    with pytest.raises(OSError, match="bytes arrived"):
        fetch(server.url)
    server.content = CONTENT[:100]
    assert fetch(server.url).read_bytes() == CONTENT[:100]


def test_redirects_are_followed(server):
    server.modes = ["redirect"]
    assert fetch(server.url).read_bytes() == CONTENT
    assert [request["path"] for request in server.requests] == ["/models/R-50.pkl", "/elsewhere.pth"]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data://x", "gopher://x/y"])
def test_nobody_is_redirected_off_the_web(server, cache, place):
    server.modes = [place]
    with pytest.raises(OSError, match=r"R-50\.pkl cannot be downloaded") as error:
        fetch(server.url)
    assert place in str(error.value)
    assert files_in(cache) == []


def test_nobody_is_redirected_from_https_to_http():
    request = web.urllib.request.Request("https://example.org/a")
    with pytest.raises(urllib.error.URLError, match="not encrypted"):
        web._Redirects().redirect_request(request, None, 302, "Found", {}, "http://example.org/a")
    assert web._Redirects().redirect_request(request, None, 302, "Found", {}, "https://example.org/b") is not None


def test_redirects_in_a_circle_end(server, cache):
    server.modes = ["redirect"] * 50
    with pytest.raises(OSError, match="cannot be downloaded"):
        fetch(server.url)
    assert len(server.requests) <= 1 + web.MOST_REDIRECTS


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "http://", "http:///x", "http://x", "http://[/y", "x"]
)
def test_only_addresses_of_files_on_the_web(cache, url):
    with pytest.raises(ValueError, match="no address of a file"):
        fetch(url)


def test_addresses_are_quoted(server):
    assert fetch(f"{server.url}/a b/\u00fc$(touch pwned)`x`.pth").read_bytes() == CONTENT
    assert server.requests[0]["path"] == "/models/R-50.pkl/a%20b/%C3%BC$(touch%20pwned)%60x%60.pth"


def test_a_file_of_unknown_length_needs_a_checksum(server, cache):
    server.modes = ["endless"] * 2
    with pytest.raises(ValueError, match=r"does not say how long it is, so add #sha256="):
        fetch(server.url)
    assert files_in(cache) == []
    assert fetch(f"{server.url}#sha256={SHA256}").read_bytes() == CONTENT


def test_a_file_larger_than_any_weights_is_refused(server, cache):
    server.modes = ["huge"]
    with pytest.raises(ValueError, match=r"has 10000000000000 bytes, and weights have \d+ at most"):
        fetch(server.url)
    assert files_in(cache) == []


def test_a_file_larger_than_the_disk_is_refused_before_it_comes(server, cache, monkeypatch):
    monkeypatch.setattr(web.shutil, "disk_usage", lambda path: FullDisk())
    with pytest.raises(
        OSError, match=r"part cannot be written \(1 MB are to come, 0 MB are free\); set MASKRCNN_CACHE"
    ):
        fetch(server.url)
    assert files_in(cache) == []


class FullDisk:
    free = 1000


def test_another_part_than_was_asked_for_is_not_appended(server, cache):
    server.modes = ["cut", "shifted"]
    with pytest.raises(OSError, match="another part than it was asked for"):
        fetch(server.url)
    assert fetch(server.url).read_bytes() == CONTENT


def test_a_server_that_trickles_is_left(monkeypatch, tmp_path):
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr(web.time, "monotonic", lambda: next(clock))

    class Trickle:
        def read1(self, size):
            return b"x"

    with (tmp_path / "part").open("wb") as file, pytest.raises(TimeoutError, match="bytes came in 60 s"):
        web._copy(Trickle(), file, 0, None, "name")


def test_neither_encrypted_nor_checked_is_told(server, monkeypatch):
    warnings = []
    monkeypatch.setattr(download.logger, "warning", lambda message, *args: warnings.append(message % args))
    fetch(f"{server.url}?a=1#sha256={SHA256}")
    assert warnings == []
    fetch(server.url)
    assert len(warnings) == 1
    assert "R-50.pkl is neither encrypted nor has it a checksum" in warnings[0]


def test_no_password_is_shown(cache):
    with pytest.raises(ValueError, match="user or password") as error:
        fetch("http://me:secret@nowhere.invalid/a.pth")
    assert "secret" not in str(error.value)


def test_a_missing_page(server, cache):
    server.modes = ["missing"]
    with pytest.raises(OSError, match=r"cannot be downloaded: 404 Not Found; .*MODEL\.WEIGHT ''"):
        fetch(server.url)
    assert files_in(cache) == []


def test_without_a_network_the_error_names_the_place(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(web.urllib.request.HTTPSHandler, "https_open", refuse)
    name = "catalog://ImageNetPretrained/MSRA/R-50"
    for checkpointer in (Checkpointer(Skeleton({"a": [1]})), DetectronCheckpointer(defaults, Skeleton({"a": [1]}))):
        with pytest.raises(OSError, match=r"Name or service not known.*MODEL\.WEIGHT ''") as error:
            checkpointer.load_weights(name)
        assert str(cached_path(ModelCatalog.get("ImageNetPretrained/MSRA/R-50"))) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_full_disk_is_named(server, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(web, "_copy", fail)
    with pytest.raises(
        OSError, match=r"R-50\.pkl\.part cannot be written \(No space left on device\); set MASKRCNN_CACHE"
    ):
        fetch(server.url)


def test_weights_by_address_and_by_a_catalogue_of_ones_own(server, tmp_path):
    torch.save({"stem.conv1.weight": torch.ones(2)}, tmp_path / "model.pth")
    server.content = (tmp_path / "model.pth").read_bytes()
    network = Skeleton({"backbone.body.stem.conv1.weight": [2]})
    Checkpointer(network).load_weights(f"{server.url}#sha256={hashlib.sha256(server.content).hexdigest()}")
    assert torch.equal(network.state_dict()["backbone.body.stem.conv1.weight"], torch.ones(2))
    (tmp_path / "catalog.py").write_text(
        f"class DatasetCatalog:\n    DATASETS = {{}}\nclass ModelCatalog:\n    @staticmethod\n    def get(name):\n"
        f"        return {{'mine': {server.url!r}, 'local': {str(tmp_path / 'model.pth')!r}}}[name]\n"
    )
    cfg = defaults.clone()
    cfg.PATHS_CATALOG = str(tmp_path / "catalog.py")
    for name in ("mine", "local"):
        network = Skeleton({"backbone.body.stem.conv1.weight": [2]})
        DetectronCheckpointer(cfg, network).load_weights(f"catalog://{name}")
        assert torch.equal(network.state_dict()["backbone.body.stem.conv1.weight"], torch.ones(2))
    with pytest.raises(KeyError, match="not in the catalogue"):
        DetectronCheckpointer(cfg, network).load_weights("catalog://another")


def test_two_processes_of_a_run_download_once(server, repository, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "tests.checkpoint.two_processes", server.url, str(tmp_path)]
    running = [
        subprocess.Popen(
            command,
            cwd=repository,
            env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-4000:]
    # one request a file, although the second one failed
    assert sorted(request["path"] for request in server.requests) == ["/models/R-50.pkl", "/models/R-50.pkl.other"]
    for rank in range(2):
        place, failure = (tmp_path / f"rank{rank}").read_text().split("\n")
        assert hashlib.sha256(Path(place).read_bytes()).hexdigest() == SHA256
        assert failure.startswith("ValueError: http")  # both are told that the second file was damaged


def test_runs_that_start_together_download_once(server):
    threads = [threading.Thread(target=fetch, args=(server.url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
