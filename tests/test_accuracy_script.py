"""scripts/test_accuracy.sh: its thresholds and verdicts, on logs that were made up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_scripts import DEMO, Checkout

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


BOXES = " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = {:.3f}\n"
SMALL = " Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.900\n"
TIME = "2022-01-01 00:00:00,000 maskrcnn_benchmark.trainer INFO: Total training time: 1:56:19.5 ({:.4f} s / it)\n"


def judge(tmp_path, text, **environment):
    (tmp_path / "joblog.log").write_text(text)
    named = ("MIN_BBOX_AP", "MIN_MASK_AP", "MIN_SPEED", "TOLERANCE", "DTYPE", "LOG")
    kept = {name: value for name, value in os.environ.items() if name not in named}
    done = subprocess.run(
        ["bash", REPOSITORY / "scripts" / "test_accuracy.sh"],
        env=kept | {"LOG": str(tmp_path / "joblog.log")} | environment, capture_output=True, text=True,
    )  # fmt: skip
    return done, re.findall(r"&&&& .*", done.stdout)


@pytest.mark.parametrize(
    ("boxes", "masks", "seconds", "accuracy", "speed"),
    [
        (0.375, 0.341, 0.4323, "PASSED", "PASSED"), (0.374, 0.341, 0.4, "FAILED", "PASSED"),
        (0.375, 0.340, 0.4, "FAILED", "PASSED"), (0.4, 0.4, 0.4325, "PASSED", "FAILED"),
    ],
)  # fmt: skip
def test_thresholds_are_the_published_ones(tmp_path, boxes, masks, seconds, accuracy, speed):
    """0.375, 0.341 and 0.9 * 2.57 iterations a second (0.43235 s): the last figures of the log count, not the first."""
    log = BOXES.format(0.9) + BOXES.format(0.9) + TIME.format(seconds) + BOXES.format(boxes) + SMALL
    done, verdicts = judge(tmp_path, log + BOXES.format(masks) + SMALL)
    passed = accuracy == speed == "PASSED"
    assert verdicts == [
        f"&&&& ACCURACY TEST {accuracy}", f"&&&& PERFORMANCE TEST {speed}", "&&&& PASSED" if passed else "&&&& FAILED",
    ]  # fmt: skip
    assert done.returncode == (0 if passed else 1)


def test_thresholds_come_from_the_environment(tmp_path):
    log = TIME.format(0.55) + BOXES.format(0.3) + SMALL
    assert judge(tmp_path, log)[0].returncode == 1
    own = {"MIN_BBOX_AP": "0.3", "MIN_MASK_AP": ""}
    assert judge(tmp_path, log, **own, DTYPE="float32")[0].returncode == 0
    assert judge(tmp_path, log, **own, DTYPE="float16")[0].returncode == 1
    assert judge(tmp_path, log, **own, MIN_SPEED="")[1] == ["&&&& ACCURACY TEST PASSED", "&&&& PASSED"]
    assert judge(tmp_path, log, **own, MIN_SPEED="3", TOLERANCE="0.5")[0].returncode == 0
    assert judge(tmp_path, "nothing", **own)[1][-1] == "&&&& FAILED"
    assert "MIN_BBOX_AP is 'much'" in judge(tmp_path, log, MIN_BBOX_AP="much")[0].stderr


def test_a_training_of_its_own_is_judged_alone(tmp_path):
    """Figures that an earlier run left in the same log do not count, and a run that fails fails."""
    checkout = Checkout(tmp_path)
    checkout.results.mkdir()
    (checkout.results / "joblog.log").write_text(BOXES.format(0.9) * 2 + TIME.format(0.1))
    done = checkout.run("test_accuracy.sh", DEMO, "SOLVER.MAX_ITER", "20")
    assert done.returncode == 1
    assert "box AP: none" in done.stdout
    assert ["SOLVER.MAX_ITER", "20"] == checkout.calls()[0][-2:]
    figures = (BOXES.format(0.5) * 2 + TIME.format(0.1)).rstrip("\n")
    assert checkout.run("test_accuracy.sh", DEMO, STUB_PRINTS=figures).returncode == 0
    done = checkout.run("test_accuracy.sh", DEMO, STUB_PRINTS=figures, STUB_STATUS=3)
    assert done.returncode == 1
    assert "&&&& FAILED" in done.stdout
