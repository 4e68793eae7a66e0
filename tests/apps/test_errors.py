"""What the processes of a run leave behind when they end: on stderr, in torchrun's files, and as an exit status."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from maskrcnn_benchmark.apps import errors
from maskrcnn_benchmark.apps.errors import describe, user_errors

CLOSED = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:40391"


@pytest.fixture
def end(tmp_path, monkeypatch, capsys):
    """``end(rank, error)``: (exit status, stderr, what torchrun reads) of a process that ends with an error."""
    monkeypatch.setattr(errors.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def run(rank, error):
        file = tmp_path / "attempt_0" / str(rank) / "error.json"
        file.parent.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        monkeypatch.setenv("RANK", str(rank))

        @user_errors()
        def program():
            raise error

        try:
            program()
        except SystemExit as stop:
            status = stop.code
        except Exception:
            status = 1
        failure = ProcessFailure(local_rank=rank, pid=1, exitcode=status, error_file=str(file))
        told = failure.message["extraInfo"]["py_callstack"] if file.exists() else ""
        return status, capsys.readouterr().err, told

    return run


def test_one_process_says_what_all_have_to_say(end):
    first, second = (end(rank, ValueError("SOLVER.BASE_LR must be above 0")) for rank in range(2))
    assert first == (2, "error: SOLVER.BASE_LR must be above 0\n", "SOLVER.BASE_LR must be above 0")
    assert second == (2, "", "SOLVER.BASE_LR must be above 0")


def test_each_says_what_only_it_has_to_say(end):
    sentences = [end(rank, OSError(f"process {rank} has no GPU"))[1] for rank in range(2)]
    assert sentences == ["error: process 0 has no GPU\n", "error: process 1 has no GPU\n"]


@pytest.mark.parametrize(
    "text",
    [
        CLOSED,
        "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv",
        "NCCL error in: NCCLUtils.cpp:94, remote process exited or there was a network error, NCCL version 2.27.5",
    ],
)
def test_a_lost_connection_is_one_line_and_not_the_cause(end, text):
    status, err, told = end(1, RuntimeError(text))
    assert status == 3
    assert err == f"process 1: another process of the run has gone ({text}), so this one ends\n"
    assert told == ""  # torchrun looks for the cause among those who leave a file


def test_a_fault_of_the_program_keeps_its_traceback(end):
    status, err, told = end(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert (status, err) == (1, "")
    assert told.startswith("Traceback")
    assert told.rstrip().endswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_memory_that_runs_out_is_something_to_mend(end):
    status, err, told = end(0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert status == 2
    assert err == f"error: {told}\n"
    assert "out of memory" in told
    assert "TEST.IMS_PER_BATCH" in told


def test_without_a_launcher_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(SystemExit) as stop, user_errors():
            raise KeyError("SOLVER.X")
        assert stop.value.code == 2
    assert capsys.readouterr().err == "error: SOLVER.X\n" * 2
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_says_cannot_steer_a_terminal_and_has_an_end():
    text = describe(
        ValueError("a.pth holds \x1b[2J\x1b]0;title\x07 and \u202etxt.exe\nand " + "x" * 10000 + " the end")
    )
    assert text.isprintable()
    assert "[2J" in text
    assert len(text) < 1600
    assert text.startswith("a.pth holds")
    assert text.endswith("the end")
