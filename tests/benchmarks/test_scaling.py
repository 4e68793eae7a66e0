"""benchmarks/scaling.py: exponents of known growth, and its quick form."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from maskrcnn_benchmark.ops import backend_info

pytestmark = pytest.mark.skipif(backend_info()["extension"] is None, reason="asks for compiled kernels")


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.setenv("MASKRCNN_REQUIRE_EXT", "1")
    return importlib.import_module("benchmarks.scaling")


def rows_of(scaling, growth, amounts=(10, 100, 1000, 10000)):
    return [
        scaling.make_row(
            "scaling", "work", str(n), {"ours": [growth(n)]}, unit="ms", amount=n, peak_memory_mib={"ours": 5.0}
        )
        for n in amounts
    ]


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_of_a_power(scaling, power):
    fit = scaling.summarize(rows_of(scaling, lambda n: 3 * n**power))
    assert fit["time_exponent"] == fit["steepest"] == pytest.approx(power, abs=0.01)
    assert fit["memory_exponent"] == 0


def test_the_smallest_amount_does_not_count(scaling):
    fit = scaling.summarize(rows_of(scaling, lambda n: n if n > 10 else 1000))
    assert fit["time_exponent"] == pytest.approx(1)


def test_a_jump_is_the_steepest_step(scaling):
    fit = scaling.summarize(rows_of(scaling, lambda n: n if n < 500 else 50 * n))
    assert fit["steepest"] == pytest.approx(1 + 1.699, abs=0.01)


def test_what_fails_is_no_point(scaling):
    rows = [*rows_of(scaling, lambda n: n), scaling.failed_row("scaling", "work", "1e5", "out of memory")]
    assert scaling.summarize(rows)["time_exponent"] == 1


def test_a_deadline_that_has_passed_leaves_points_out_by_name(scaling):
    sweep = scaling.Sweep("work", "things", [(1, "one", lambda: print), (2, "two", lambda: print)])
    assert scaling.measure_sweep(sweep, deadline=0.0) == ([], ["work against things: one", "work against things: two"])


@pytest.mark.slow
def test_writes_rows_fits_and_a_page(tmp_path, repository):
    out = tmp_path / "scaling.json"
    command = [sys.executable, "benchmarks/scaling.py", "--quick", "--out", str(out)]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert [fit["name"] for fit in document["fits"]] == ["mask targets against regions", "training step against images"]
    assert len(document["rows"]) == 4
    page = out.with_suffix(".html").read_text()
    assert page.count('<figure class="chart">') == 4
    assert "training step against images: memory" in page
