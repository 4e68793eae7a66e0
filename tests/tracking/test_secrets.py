"""Secrets of the environment: neither in messages nor in what is uploaded."""

from __future__ import annotations

import logging

import pytest

from maskrcnn_benchmark.tracking.secrets import hide_secrets, shareable, without_secrets
from maskrcnn_benchmark.tracking.tracker import TrackedRun
from maskrcnn_benchmark.tracking.tracker_sink import TrackerSink
from tests.tracking.recording import RecordingTracker

SECRET = "s3cr3t-0123456789"
VARIABLES = [
    "NEPTUNE_API_TOKEN", "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS",
]  # fmt: skip


@pytest.mark.parametrize("variable", VARIABLES)
def test_values_of_the_environment_are_hidden(monkeypatch, variable):
    assert hide_secrets(f"refused {SECRET}") == f"refused {SECRET}"
    monkeypatch.setenv(variable, SECRET)
    assert hide_secrets(f"refused {SECRET} and {SECRET}!") == "refused *** and ***!"


def test_longer_secrets_are_hidden_whole(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("NEPTUNE_API_TOKEN", f"{SECRET}-and-more")
    assert hide_secrets(f"{SECRET}-and-more") == "***"


def test_users_of_addresses_are_hidden():
    tree = {"a": ["http://me:pass@host:5000/x?y=1", ("s3://key@bucket",)], "b": 3, "c": "me@mail.example"}
    assert without_secrets(tree) == {
        "a": ["http://host:5000/x?y=1", ("s3://bucket",)],
        "b": 3,
        "c": "me@mail.example",
    }


def test_other_variables_and_short_values_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "threads-of-this")
    monkeypatch.setenv("SOME_TOKEN", "1")
    assert hide_secrets("1 threads-of-this") == "1 threads-of-this"


def test_uploads_are_cleaned_and_the_file_stays(monkeypatch, tmp_path):
    path = tmp_path / "config.yml"
    text = f"DATA: http://me:pass@host/x\nNOTE: {SECRET}\n"
    path.write_text(text)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    tracker = RecordingTracker()
    sink = TrackerSink(tracker, TrackedRun("project", "", "name"))
    sink.artifact("config", str(path))
    sink.close()
    assert tracker.of("artifact") == [("config", b"DATA: http://host/x\nNOTE: ***\n")]
    assert path.read_text() == text


def test_what_needs_no_cleaning_is_not_copied(tmp_path):
    for name in ("config.yml", "model_final.pth"):
        path = tmp_path / name
        path.write_bytes(b"\xff\x00 plain http://host/x")
        with shareable(str(path)) as shared:
            assert shared == str(path)


def test_failures_do_not_tell_secrets(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    logger = logging.getLogger("maskrcnn_benchmark")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.DEBUG, "maskrcnn_benchmark.trainer")
    error = ConnectionError(f"GET http://me:pass@host/api with Bearer {SECRET} failed")
    sink = TrackerSink(RecordingTracker(fails={"start"}, error=error), TrackedRun("project", "", "name"))
    sink.log((1,), {"loss": 1.0})
    sink.close()
    assert "GET http://host/api with Bearer *** failed" in caplog.text
    assert "Traceback" in caplog.text
    assert SECRET not in caplog.text
    assert "pass@" not in caplog.text
