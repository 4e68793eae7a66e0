"""The process that starts workers: what it gives them, and what it makes of how they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.engine.signals import Interrupted
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.failures import code_of, failing_as, failing_as_data, message_of
from maskrcnn_benchmark.ymir.outcome import Failure, find_failure
from maskrcnn_benchmark.ymir.settings import JobSettings
from maskrcnn_benchmark.ymir.start import ROOT, num_processes
from maskrcnn_benchmark.ymir.variables import worker_variables

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError(ReturnCode.OBJECT_TYPE, "x"), 300005),
        (torch.OutOfMemoryError("x"), 300103),
        (MemoryError(), 300103),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 300103),
        (FloatingPointError("loss"), 300201),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), 300101),
        (ConnectionResetError(), 300301),
        (FULL, 160004),
        (RuntimeError("anything"), 160004),
        (ValueError("of our own"), 160004),
        (Interrupted("SIGTERM"), 160004),
    ],
)
def test_codes_of_errors(error, code):
    assert code_of(error) == code
    assert message_of(error, "/out")


def test_mistakes_are_of_the_kind_of_their_place():
    for error, code in ((ValueError("x"), 300001), (KeyError("x"), 300001), (FULL, 160004), (MemoryError(), 300103)):
        with pytest.raises((JobError, OSError, MemoryError)) as caught, failing_as(ReturnCode.CONFIG):
            raise error
        assert code_of(caught.value) == code
    with pytest.raises(RuntimeError, match="ours"), failing_as(ReturnCode.CONFIG):
        raise RuntimeError("ours")


def test_mistakes_in_the_data(tmp_path):
    (tmp_path / "empty.jpg").touch()
    for name, code in (("none.jpg", 300002), ("empty.jpg", 300003)):
        with pytest.raises(JobError) as caught, failing_as_data():
            read_image(tmp_path / name)
        assert caught.value.code == code
    for error, code in (
        (ValueError("Caught ValueError in DataLoader worker process 0."), 300003),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), 300002),
        (ValueError("of a setting"), 300001),
    ):
        with pytest.raises(JobError) as caught, failing_as_data():
            raise error
        assert caught.value.code == code


def test_a_full_disk_is_named():
    assert message_of(FULL, "/out").startswith("/out cannot be written: no space is left")
    named = OSError(errno.ENOSPC, "No space left on device", "/out/models/a")
    assert message_of(named, "/out").startswith("/out/models/a cannot be written")


def test_a_remedy_is_one_of_the_platforms_keys():
    message = message_of(torch.OutOfMemoryError("CUDA out of memory"), "/out")
    assert "out of memory" in message
    assert "batch_size_per_gpu" in message


def test_the_first_worker_that_failed_has_the_word(tmp_path):
    Failure(160004, "another process has gone", is_echo=True).leave(str(tmp_path), 0)
    Failure(300103, "out of memory", "stack").leave(str(tmp_path), 1)
    found = find_failure(str(tmp_path), 1)
    assert (found.code, found.message, found.details) == (300103, "out of memory", "stack")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(-signal.SIGKILL, 300103, "SIGKILL"), (-signal.SIGSEGV, 160004, "SIGSEGV"), (7, 160004, "status 7")],
)
def test_workers_that_end_without_a_word(tmp_path, status, code, words):
    found = find_failure(str(tmp_path), status)
    assert found.code == code
    assert words in found.message


def test_folders_that_cannot_be_written_are_replaced(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    given = {"HOME": "/nonexistent", "TORCH_HOME": str(own), "PYTHONPATH": "/elsewhere", "OTHER": "1"}
    found = worker_variables(given, "/out/.cache", ROOT)
    assert (found["TORCH_HOME"], found["OTHER"]) == (str(own), "1")
    assert {found[name].rpartition("/")[0] for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")} == {"/out/.cache"}
    assert found["PYTHONPATH"] == f"{ROOT}{os.pathsep}/elsewhere"


def test_numbers_of_processes(monkeypatch):
    assert [num_processes(JobSettings(values)) for values in ({}, {"gpu_id": ""}, {"gpu_id": "0,1,2"})] == [1, 1, 3]
    monkeypatch.setenv("YMIR_CPU_PROCESSES", "2")
    assert [num_processes(JobSettings(values)) for values in ({}, {"gpu_id": "0"})] == [2, 1]


def test_a_job_that_is_wrong_is_found_without_torch(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "config.yaml").write_text("class_names: []\n")
    (tmp_path / "env.yaml").write_text(
        f"protocol_version: 1.1.0\ntask_id: t1\nrun_training: true\n"
        f"input: {{root_dir: {tmp_path}, config_file: config.yaml}}\noutput: {{root_dir: {tmp_path}/out}}\n"
    )
    code = (
        "import sys; sys.argv = ['ymir_start.py']\n"
        "from maskrcnn_benchmark.config import cfg\nfrom maskrcnn_benchmark.ymir.start import main\n"
        "status = main(cfg); print(status, *sorted({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    variables = {**os.environ, "YMIR_ENV_FILE": str(tmp_path / "env.yaml")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.stdout == "1\n"
    assert done.stderr.splitlines()[-1].startswith("error 300001: ")
    record = (tmp_path / "out" / "monitor.txt").read_text().split("\t")
    assert (record[0], record[2:5]) == ("t1", ["1.00", "4", "300001"])
