"""Workers that die, hang or wait for a file, in real processes: what is said of them, and that training goes on."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from maskrcnn_benchmark.data.loaders.watched import LoaderError, WatchedLoader, explain_worker_failure
from maskrcnn_benchmark.data.read_watch import ReadWatch, read_bytes, watch_own_reads

READ_WATCH = "maskrcnn_benchmark.data.read_watch"


class Files(Dataset):
    """The first byte of each file; ``fault`` is called with the index first."""

    def __init__(self, paths, fault=None):
        self.paths = paths
        self.fault = fault

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        if self.fault is not None:
            self.fault(index)
        return read_bytes(self.paths[index])[0]


@pytest.fixture
def paths(tmp_path):
    """Eight files, whose first bytes are 0 to 7."""
    paths = [tmp_path / f"image {number}.jpg" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    return paths


@pytest.fixture
def log(caplog, monkeypatch):
    logger = logging.getLogger("maskrcnn_benchmark")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def make_fifo(path):
    """Put in the place of a file one that gives nothing until it is written to, as a file system that hangs."""
    path.unlink()
    os.mkfifo(path)


def kill_oneself(index):
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def end_oneself(index):
    if index == 5:
        os._exit(7)


def load(dataset, **options):
    """All samples through two workers."""
    loader = WatchedLoader(dataset, batch_size=1, num_workers=2, persistent_workers=True, **options)
    return [int(batch[0]) for batch in loader]


def test_the_same_batches_as_a_plain_loader(paths):
    dataset = Files(paths)
    plain = [int(batch[0]) for batch in DataLoader(dataset, batch_size=1)]
    assert load(dataset, timeout=60) == plain == list(range(8))
    assert [int(batch[0]) for batch in WatchedLoader(dataset, batch_size=1, timeout=60)] == plain


def test_a_killed_worker_is_named_with_its_image(paths):
    with pytest.raises(
        LoaderError, match=r"killed by SIGKILL .*worker 1, ended by SIGKILL, .*memory runs out"
    ) as error:
        load(Files(paths, kill_oneself))
    assert "image 3.jpg" in str(error.value)  # the one that this worker read before
    assert "DATALOADER.NUM_WORKERS" in str(error.value)


def test_a_worker_that_ends_is_named(paths):
    with pytest.raises(LoaderError, match=r"worker 1, ended by status 7, .*NUM_WORKERS 0"):
        load(Files(paths, end_oneself))


def test_a_stuck_worker_ends_the_run_and_names_its_file(paths):
    make_fifo(paths[2])
    message = r"for 1.0 s, which is DATALOADER.TIMEOUT \(worker 0 has been reading .*image 2.jpg for [12] s\)"
    with pytest.raises(LoaderError, match=message):
        load(Files(paths), timeout=1.0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_slow_read_is_told_of_and_training_goes_on(paths, log, num_workers):
    make_fifo(paths[2])

    def answer_late():
        while "image 2.jpg" not in log.text:
            time.sleep(0.01)
        paths[2].write_bytes(bytes([2]))

    answering = threading.Thread(target=answer_late)
    answering.start()
    options = {"timeout": 60, "slow_seconds": 0.2}
    loader = WatchedLoader(
        Files(paths), batch_size=1, num_workers=num_workers, persistent_workers=num_workers > 0, **options
    )
    assert [int(batch[0]) for batch in loader] == list(range(8))
    answering.join()
    told = [record.getMessage() for record in log.records if record.name == READ_WATCH]
    assert f"has been waiting for {paths[2]} for 0 s" in told[0]
    deadline = time.monotonic() + 30
    while not any("has come" in record.getMessage() for record in log.records) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "image 2.jpg has come after" in log.text


def test_a_slow_read_is_told_of_again_after_twice_the_time(log, monkeypatch):
    from maskrcnn_benchmark.data import read_watch

    now = 0
    monkeypatch.setattr(read_watch.time, "monotonic_ns", lambda: now)
    told = read_watch._Told(30.0)
    for second in range(200):
        now = (second + 1) * 10**9
        told.look(0, ("a.jpg", 10**9))
    assert [record.args[2] for record in log.records] == [30.0, 60.0, 120.0]


def test_reads_of_several_processes_are_kept_apart(tmp_path, monkeypatch):
    from maskrcnn_benchmark.data import read_watch

    monkeypatch.setattr(read_watch, "_own_row", None)
    watch = ReadWatch(2)
    (tmp_path / "über.jpg").write_bytes(b"x")
    watch_own_reads(watch.table, 1)
    assert watch.describe(1) == "has not read an image yet"
    assert read_bytes(tmp_path / "über.jpg") == b"x"
    assert watch.reading(1) == ("", 0)
    assert str(tmp_path / "über.jpg") in watch.describe(1)
    assert watch.describe(0) == "has not read an image yet"


def test_a_worker_outlives_the_signals_of_a_scheduler(paths):
    """Slurm signals all processes of a job; the run saves first, and then ends its workers."""
    loader = WatchedLoader(Files(paths), batch_size=1, num_workers=1, persistent_workers=True)
    batches = iter(loader)
    next(batches)
    (worker,) = loader._iterator._workers
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(worker.pid, number)
    assert [int(batch[0]) for batch in batches] == list(range(1, 8))
    assert worker.is_alive()


@pytest.mark.slow
def test_a_program_ends_with_its_workers(repository, paths):
    """In an error too, where the batches are not gone through, and with a worker that waits for a file."""
    make_fifo(paths[4])
    code = """
import sys
from tests.data.test_watched_loader import Files
from maskrcnn_benchmark.data.loaders.watched import WatchedLoader
batches = iter(WatchedLoader(Files(sys.argv[1:]), batch_size=1, num_workers=2, persistent_workers=True))
next(batches)
raise ValueError("a fault of the program")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: a fault of the program"


SMALL_SHARED_MEMORY = """
import torch

from maskrcnn_benchmark.data.loaders.watched import WatchedLoader

class Large(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return torch.zeros(2**22)

try:
    for _ in WatchedLoader(Large(), batch_size=1, num_workers=1, persistent_workers=True):
        pass
except OSError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True).returncode,
    reason="a /dev/shm of one's own needs unshare and the right to mount",
)
def test_shared_memory_that_is_too_small_is_named(repository):
    mount = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", SMALL_SHARED_MEMORY]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert "ran out of shared memory, of which /dev/shm has 4 MiB" in done.stdout, done.stderr[-3000:]
    assert "--shm-size" in done.stdout


def test_the_words_of_a_bus_error():
    """As torch's DataLoader words it; it comes where a container's memory is overcommitted."""
    text = (
        "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    )
    assert "--shm-size" in explain_worker_failure(RuntimeError(text))
    assert explain_worker_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_an_error_of_a_worker_stays_what_it_is(paths):
    """An ordinary error of a worker stays what it is."""

    def fail(index):
        raise ValueError(f"image {index} is broken")

    with pytest.raises(ValueError, match="image 0 is broken"):
        load(Files(paths, fail))
