"""How checkpoints reach the disk: whole or not at all, beside the training, a limited number, by one run at a time."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint import DetectronCheckpointer, files
from maskrcnn_benchmark.checkpoint.background import Background, copy_to_host
from maskrcnn_benchmark.checkpoint.lock import LOCK_FILE, FolderLock
from maskrcnn_benchmark.solver import WarmupMultiStepLR
from tests.forked import exit_code, holding


def make_run(folder, *, keep=0, size=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, size), nn.BatchNorm1d(size))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = WarmupMultiStepLR(optimizer, (3,), warmup_iters=2)
    run = DetectronCheckpointer(
        CfgNode({"SEED": 7}), model, optimizer, scheduler, str(folder), save_to_disk=True, keep=keep
    )
    take_step(run)
    return run


def take_step(run):
    run.model(torch.randn(4, 3)).square().sum().backward()
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()


@pytest.fixture
def messages(monkeypatch):
    """What the checkpointer logs, by level."""
    found = {"info": [], "warning": [], "error": []}
    logger = logging.getLogger("maskrcnn_benchmark.checkpoint")
    for level, kept in found.items():
        monkeypatch.setattr(logger, level, lambda message, *args, kept=kept, **_: kept.append(message % args))
    return found


def names_in(folder):
    return sorted(os.listdir(folder))


def test_one_flipped_bit_of_a_tensor_is_noticed(tmp_path, messages):
    """torch.load itself takes such a file."""
    run = make_run(tmp_path)
    run.save("model_0000001", iteration=1)
    take_step(run)
    run.save("model_0000002", iteration=2)
    newest = tmp_path / "model_0000002.pth"
    content = bytearray(newest.read_bytes())
    weight = run.model[0].weight.detach().numpy().tobytes()
    content[bytes(content).index(weight) + 10] ^= 1
    newest.write_bytes(content)
    assert not torch.equal(torch.load(newest, weights_only=True)["model"]["0.weight"], run.model[0].weight)
    assert make_run(tmp_path).load() == {"iteration": 1}
    assert "model_0000002.pth is damaged: the checksum of" in messages["warning"][0]
    assert "model_0000001.pth" in messages["warning"][1]


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path):
    run = make_run(tmp_path)
    run.save("model_final", iteration=1)
    path = tmp_path / "model_final.pth"
    content, expected = path.read_bytes(), torch.load(path, weights_only=True)
    noticed = []
    for at in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            data = files.read_weights(str(path), verify=True)
        except ValueError as error:
            noticed.append(str(error))
            continue
        assert all(torch.equal(data["model"][name], value) for name, value in expected["model"].items())
        assert {key: data[key] for key in ("iteration", "scheduler", "config")} == {
            key: expected[key] for key in ("iteration", "scheduler", "config")
        }
    assert len(noticed) > 200
    assert all(message.startswith(str(path)) for message in noticed)


def test_the_checksums_are_those_of_the_zip_format(tmp_path):
    make_run(tmp_path).save("model_final")
    done = subprocess.run([sys.executable, "-m", "zipfile", "-t", tmp_path / "model_final.pth"], capture_output=True)
    assert done.returncode == 0
    assert b"Done testing" in done.stdout


def test_a_background_write_gives_the_same_file(tmp_path):
    run = make_run(tmp_path)
    entries = {"iteration": 3, "scaler": {}, "meters": {"loss": {"window": [0.5], "total": 0.5, "count": 1}}}
    run.save("model_0000003", **entries)
    run.try_save("model_0000004", in_background=True, **entries)
    run.wait()
    assert (tmp_path / "model_0000003.pth").read_bytes() == (tmp_path / "model_0000004.pth").read_bytes()


def test_training_goes_on_while_the_state_of_before_is_written(tmp_path, monkeypatch):
    """The file is held open until weights, momentum and statistics have changed."""
    run = make_run(tmp_path)
    run.save("model_0000001", iteration=1)
    may_write, write = threading.Event(), files._ErrorKeeper.write
    monkeypatch.setattr(files._ErrorKeeper, "write", lambda file, data: may_write.wait(60) and write(file, data))
    run.try_save("model_0000002", in_background=True, iteration=1)
    for _ in range(3):
        take_step(run)
    assert (tmp_path / "last_checkpoint").read_text().endswith("model_0000001.pth")
    may_write.set()
    run.wait()
    assert (tmp_path / "last_checkpoint").read_text().endswith("model_0000002.pth")
    assert (tmp_path / "model_0000001.pth").read_bytes() == (tmp_path / "model_0000002.pth").read_bytes()


def test_one_checkpoint_at_a_time_is_written_in_order(tmp_path, monkeypatch):
    run, events, write = make_run(tmp_path), [], files.torch.save

    def save(data, file):
        events.append(("begin", data["iteration"]))
        write(data, file)
        events.append(("end", data["iteration"]))

    monkeypatch.setattr(files.torch, "save", save)
    for iteration in (1, 2, 3):
        run.try_save(f"model_{iteration:07d}", in_background=True, iteration=iteration)
    run.save("model_final", iteration=4)
    assert events == [(what, iteration) for iteration in (1, 2, 3, 4) for what in ("begin", "end")]
    assert (tmp_path / "last_checkpoint").read_text().endswith("model_final.pth")


def test_a_copy_shares_nothing_and_is_laid_out_alike():
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    data = {"a": [tensor, (tensor, 3)], "b": nn.Linear(2, 2).state_dict()}
    copied = copy_to_host(data)
    assert torch.equal(copied["a"][0], tensor)
    assert copied["a"][0].stride() == tensor.stride()
    assert copied["a"][0] is copied["a"][1][0]  # as in the original
    assert copied["b"]._metadata == data["b"]._metadata
    tensor.zero_()
    data["b"]["bias"].zero_()
    assert copied["a"][0].abs().sum() > 0
    assert copied["b"]["bias"].abs().sum() > 0


def test_what_a_background_job_raises_reaches_the_next_wait():
    def fail():
        raise KeyError("lost")

    background = Background()
    background.start(fail)
    with pytest.raises(KeyError, match="lost"):
        background.wait()
    background.wait()


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk_is_told_of_and_leaves_nothing(tmp_path, messages, in_background):
    """The kernel refuses to let the file grow: half of it is there already."""
    run = make_run(tmp_path, size=20000)
    run.save("model_0000001", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        for number in (2, 3):
            run.try_save(f"model_{number:07d}", in_background=in_background, iteration=number)
        run.wait()
        with pytest.raises(OSError, match="File too large"):
            run.save("model_final", iteration=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(messages["error"]) == 2  # once a try
    assert "model_0000002.pth cannot be written" in messages["error"][0]
    assert "File too large" in messages["error"][0]
    run.try_save("model_0000004", in_background=in_background, iteration=4)
    run.wait()
    assert run.load() == {"iteration": 4}


def test_no_space_left_is_named_although_torch_hides_it(tmp_path):
    with open("/dev/full", "wb", buffering=0) as full:
        keeper = files._ErrorKeeper(full)
        with pytest.raises((OSError, RuntimeError)):
            torch.save({"a": torch.zeros(100)}, keeper)
    assert "No space left on device" in str(keeper.error)


def test_a_lost_folder_is_told_of(tmp_path, messages):
    folder = tmp_path / "out"
    folder.mkdir()
    run = make_run(folder)
    folder.rmdir()
    folder.write_text("not a folder any more")
    run.try_save("model_0000001", in_background=True, iteration=1)
    run.wait()
    assert str(folder) in messages["error"][0]


@pytest.mark.parametrize(("keep", "left"), [(0, [2, 4, 6, 8]), (1, [8]), (3, [4, 6, 8])])
def test_so_many_checkpoints_stay(tmp_path, keep, left):
    run = make_run(tmp_path, keep=keep)
    for iteration in (2, 4, 6, 8):
        run.save(f"model_{iteration:07d}", iteration=iteration)
    run.save("model_final", iteration=8)
    assert names_in(tmp_path) == ["last_checkpoint", *(f"model_{number:07d}.pth" for number in left), "model_final.pth"]


def test_an_older_one_goes_only_when_the_new_one_is_named_the_last(tmp_path, monkeypatch):
    run = make_run(tmp_path, keep=1)
    run.save("model_0000002", iteration=2)
    seen, unlink = [], os.unlink

    def watch(path):
        seen.append((os.path.basename(path), (tmp_path / "last_checkpoint").read_text(), names_in(tmp_path)))
        unlink(path)

    monkeypatch.setattr(os, "unlink", watch)
    run.save("model_0000004", iteration=4)
    ((gone, newest, names),) = seen
    assert gone == "model_0000002.pth"
    assert newest.endswith("model_0000004.pth")
    assert names == ["last_checkpoint", "model_0000002.pth", "model_0000004.pth"]


def test_those_of_a_run_that_was_taken_back_are_neither_removed_nor_read(tmp_path):
    run = make_run(tmp_path, keep=2)
    for iteration in (2, 4, 6):
        run.save(f"model_{iteration:07d}", iteration=iteration)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_0000004.pth"))
    run.save("model_0000005", iteration=5)
    assert names_in(tmp_path)[1:] == ["model_0000004.pth", "model_0000005.pth", "model_0000006.pth"]
    (tmp_path / "model_0000005.pth").write_bytes(b"damaged")
    assert make_run(tmp_path).load() == {"iteration": 4}


def test_times_of_files_decide_nothing(tmp_path):
    """The clock was an hour late when the fourth iteration was saved."""
    run = make_run(tmp_path)
    for iteration in (2, 4, 6):
        run.save(f"model_{iteration:07d}", iteration=iteration)
    os.utime(tmp_path / "model_0000004.pth", (1, 1))
    (tmp_path / "model_0000006.pth").write_bytes(b"damaged")
    assert make_run(tmp_path).load() == {"iteration": 4}


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path):
    def write_half():
        files.write_atomically(
            str(tmp_path / "model_final.pth"),
            lambda file: (file.write(b"half"), file.flush(), os.kill(os.getpid(), signal.SIGKILL)),
        )

    for name in (".hidden.tmp", "notes.tmp", "model_0000002.pth"):
        (tmp_path / name).write_text("kept")
    assert exit_code(write_half) == -signal.SIGKILL
    (left,) = set(names_in(tmp_path)) - {".hidden.tmp", "notes.tmp", "model_0000002.pth"}
    assert left.startswith(".model_final.pth.")
    assert files.remove_leftovers(str(tmp_path)) == [left]
    assert names_in(tmp_path) == [".hidden.tmp", "model_0000002.pth", "notes.tmp"]


def test_files_get_what_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(str(tmp_path / "file"), lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_folder_belongs_to_one_run_and_a_dead_one_holds_nothing(tmp_path):
    with holding(tmp_path) as holder, pytest.raises(OSError, match="another run writes to") as error:
        FolderLock(str(tmp_path), patience_s=0.0)
    assert f"(process {holder.pid} on " in str(error.value)
    assert (tmp_path / LOCK_FILE).exists()
    lock = FolderLock(str(tmp_path), patience_s=0.0)
    assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")
    lock.close()


def test_one_that_is_just_ending_is_waited_for(tmp_path):
    with holding(tmp_path) as holder:
        timer = threading.Timer(0.5, holder.kill)
        timer.start()
        FolderLock(str(tmp_path), patience_s=60.0).close()
        timer.join()


def test_a_file_system_without_locks_is_told_of(tmp_path, messages, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("maskrcnn_benchmark.checkpoint.lock.fcntl.lockf", refuse)
    FolderLock(str(tmp_path)).close()
    assert "No locks available" in messages["warning"][0]


@pytest.mark.gpu
def test_a_copy_from_a_gpu_is_of_the_moment_of_the_call(tmp_path):
    """Work queued before it is waited for, what comes after does not reach it."""
    device = torch.device("cuda")
    tensor = torch.ones(64, 3, 256, 256, device=device).to(memory_format=torch.channels_last)
    for _ in range(50):
        tensor.mul_(1.01)
    expected = tensor.clone()
    copied = copy_to_host({"a": tensor})["a"]
    tensor.zero_()
    assert copied.device.type == "cpu"
    assert copied.stride() == tensor.stride()
    assert torch.equal(copied, expected.cpu())
