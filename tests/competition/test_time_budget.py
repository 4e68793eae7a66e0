"""tools/time_budget.py, the clock that begins with the process, and what a run measures before it trains."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from maskrcnn_benchmark.apps.competition.conversion import convert_budget, iterations_within, report
from maskrcnn_benchmark.apps.options.time_budget import make_parser
from maskrcnn_benchmark.utils import run_clock
from tests.engine.stand_ins import make_run


def lines(*words):
    return list(report(make_parser().parse_args(words)))


def test_budgets_of_the_published_gpus():
    assert round(convert_budget(36, reference_seconds=65, local_seconds=28), 2) == 15.51
    assert round(convert_budget(3, reference_seconds=46, local_seconds=17), 2) == 1.11
    words = ("--reference-hours", "36", "--reference-epoch-seconds", "65", "--local-epoch-seconds", "28")
    assert lines(*words) == ["15.51"]


def test_iterations_that_fit(tmp_path):
    assert iterations_within(36, seconds_per_iteration=0.5, other_minutes=60) == 35 * 3600 * 2
    assert iterations_within(1, seconds_per_iteration=0.5, other_minutes=61) == 0
    kept = {"format": 1, "max_hours": 36, "used_seconds": 9, "finished": True, "fitted": None, "last": None}
    (tmp_path / "time_budget.json").write_text(json.dumps({**kept, "seconds_per_iteration": 0.25}))
    (line,) = lines("--run", str(tmp_path), "--reference-hours", "2")
    assert line.startswith("28800 iterations of 0.25 s in 2.00 h")
    both = ("--reference-epoch-seconds", "65", "--local-epoch-seconds", "32.5", "--seconds-per-iteration", "1")
    assert [line.split()[0] for line in lines(*both)] == ["18.00", "64800"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the seconds of an epoch"),
        (("--local-epoch-seconds", "3"), "give both"),
        (("--reference-epoch-seconds", "-1", "--local-epoch-seconds", "3"), "above 0"),
        (("--seconds-per-iteration", "-1"), "above 0"),
    ],
)
def test_half_a_question(words, message):
    with pytest.raises(ValueError, match=message):
        lines(*words)


def test_the_clock_begins_with_the_process():
    code = (
        "import time; time.sleep(1.2)\n"
        "from maskrcnn_benchmark.utils.run_clock import start_run_clock\n"
        "first, second = start_run_clock(), start_run_clock()\n"
        "print(first(), second())"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = map(float, done.stdout.split())
    assert 1.2 <= first <= time.monotonic() - begin + 0.02  # the system counts in hundredths
    assert second < first - 1.0  # a second run in the process has its own time


def test_the_clock_goes_on_without_the_system_s_help(monkeypatch):
    monkeypatch.setattr(run_clock, "_STATUS", "/nowhere")
    age = run_clock.process_age()
    assert 0 <= age <= run_clock.process_age()


def test_a_checkpoint_is_tried_out_and_leaves_nothing(tmp_path):
    checkpointer = make_run(tmp_path)[3]
    checkpointer.try_out()
    assert checkpointer.write_seconds > 0
    assert list(tmp_path.iterdir()) == []
    assert not checkpointer.has_checkpoint()
