"""The suite's one command: areas that measure, fail, hang or write nonsense, and the two files that come of it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import cv2
import numpy as np
import pytest

from benchmarks import compare, run
from benchmarks._page import least_ratio
from tests.apps.browser import needs_browser, open_page
from tests.apps.test_report import Parsed

# A stand-in for an area: it takes the suite's flags, and does what its argument says.
AREA = """
import argparse, sys, time
sys.path.insert(0, {repository!r})
from benchmarks._options import add_suite_options
from benchmarks._rows import failed_row, make_row, write_document

parser = argparse.ArgumentParser()
add_suite_options(parser)
parser.add_argument("--do")
args = parser.parse_args()
print("peers", args.peers, args.peer, args.quick, args.time_limit)
if args.do == "fail":
    raise RuntimeError("the <disk> is full")
if args.do == "hang":
    time.sleep(600)
if args.do == "nothing":
    sys.exit()
name = args.do
times = {{"ours": [1.0, 1.1, 1.2], "torchvision": [4.0, 4.2, 4.4], "plain PyTorch": [2.0, 2.0, 2.0]}}
more = {{"threads": 1, "peak_memory_mib": {{"ours": 5.0}}, "quantity": "size",
        "stages_ms": {{"ours": {{"fpn": 1.0}}, "torchvision": {{"fpn": 2.0}}}}}}
rows = [make_row(name, "work", f"{{x}} x 1344 & more", times, unit="ms", clock="cpu", amount=x, **more) for x in (1, 2)]
rows.append(make_row(name, "memory", "x", {{"ours": [10.0], "torchvision": [20.0]}}, unit="MiB", clock="none"))
rows.append(failed_row(name, "other work", "x", "out of memory"))
peers = {{"torchvision": "0.28", "detectron2": "absent: detectron2 is not installed"}}
write_document(args.out, rows, machine={{}}, peers=peers, left_out=["the rest"],
               fits=[{{"name": name, "time_exponent": 1.25}}])
"""


@pytest.fixture
def areas(tmp_path, repository, monkeypatch):
    """``areas(ops="measure", step="fail")`` puts stand-ins in the place of the suite's areas."""

    def use(**what):
        program = tmp_path / "area.py"
        program.write_text(textwrap.dedent(AREA).format(repository=str(repository)))
        words = {name: name if do == "measure" else do for name, do in what.items()}
        found = {name: run.Area((str(program), "--do", word), 2.0, (f"{name}'s",)) for name, word in words.items()}
        monkeypatch.setitem(run.AREAS, "cpu", found)

    return use


@pytest.fixture
def suite(tmp_path):
    """``suite(word, ...)``: (exit status, the JSON, the page) of the command."""

    def call(*words):
        status = run.main(["--out", str(tmp_path / "suite"), *words])
        return status, json.loads((tmp_path / "suite.json").read_text()), (tmp_path / "suite.html").read_text()

    return call


def test_one_area_fails_and_the_others_go_on(areas, suite):
    areas(ops="measure", step="fail", data="nothing", scaling="measure")
    status, document, text = suite()
    assert status == 1
    entries = document["areas"]
    assert [entries[name]["status"] for name in entries] == ["measured", "failed", "failed", "measured"]
    assert "RuntimeError: the <disk> is full" in entries["step"]["error"]
    assert "no result" in entries["data"]["error"]
    assert {row["area"] for row in document["rows"]} == {"ops", "scaling"}
    page = Parsed(text)
    shown = " ".join(page.words)
    assert "step failed: RuntimeError: the <disk> is full" in shown
    assert "ops: no time was left for the rest" in shown


def test_the_result(areas, suite):
    areas(ops="measure")
    status, document, text = suite("--peer", "torchvision=/src/tv", "--peers", "torchvision,detectron2", "--quick")
    assert status == 0
    assert {"format", "date", "machine", "peers", "areas", "rows", "commit", "seconds", "is_quick"} <= document.keys()
    assert {"cpu", "torch", "python", "cores", "load_before"} <= document["machine"].keys()
    assert document["peers"] == {"torchvision": "0.28", "detectron2": "absent: detectron2 is not installed"}
    page = Parsed(text)
    assert len(page.ids) == len(set(page.ids))
    assert [address for address in page.addresses if not address.startswith(("#", "data:"))] == []
    shown = " ".join(page.words)
    assert "detectron2 is absent: detectron2 is not installed" in shown
    assert "2 x 1344 & more" in shown
    assert "out of memory" in shown
    assert {1.0, 1.1, 4.2, 3.818, 5.0, 1.25} <= {*page.values}  # a stage, medians, a ratio, memory, an exponent
    points = [[point[2:] for point in line["points"]] for chart in page.series for line in chart]
    assert [[1, 1.1], [2, 1.1]] in points
    assert [[1, 0.55], [2, 1.1]] in points  # in proportion


def test_flags_reach_the_areas(areas, suite, capfd):
    areas(ops="measure")
    suite("--peer", "detectron2=/src/d2", "--peers", "detectron2", "--quick", "--time-limit", "50")
    assert "peers detectron2 ['detectron2=/src/d2'] True 50.0" in capfd.readouterr().out
    areas(ops="measure", step="measure")
    suite("--peer", "ops's=/src")  # which only one of them knows
    printed = capfd.readouterr().out
    assert 'peers None ["ops\'s=/src"] False 2.0' in printed
    assert "peers None [] False" in printed


def test_an_area_that_hangs_is_ended(areas, suite, monkeypatch):
    monkeypatch.setattr(run, "_GRACE_SECONDS", 1.0)
    areas(ops="hang", step="measure")
    begin = time.monotonic()
    status, document, _ = suite("--time-limit", "4")
    assert time.monotonic() - begin < 300
    assert status == 1
    assert "was ended after 4 s" in document["areas"]["ops"]["error"]
    assert document["areas"]["step"]["status"] == "measured"


def test_then_it_is_compared(areas, suite, tmp_path, capsys):
    areas(ops="measure")
    _, document, _ = suite()
    before = tmp_path / "before.json"
    before.write_text(json.dumps(document))
    assert suite("--compare", str(before))[0] == 0
    for row in document["rows"]:
        if "results" in row:
            row["results"]["ours"]["samples"] = [value / 3 for value in row["results"]["ours"]["samples"]]
    before.write_text(json.dumps(document))
    assert suite("--compare", str(before))[0] == 1
    assert "SLOWER" in capsys.readouterr().out
    assert {each.verdict for each in compare.compare(document, document)} == {compare.SAME, compare.SKIPPED}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--areas", "ops,speed"], "there is no speed on cpu; there are ops"),
        (["--peer", "mmdet=/x"], "there is no peer mmdet"),
        (["--peer", "torchvision"], "is not NAME=PATH"),
        (["--compare", "nowhere.json"], "nowhere.json"),
    ],
)
def test_mistakes_are_said_before_anything_runs(areas, tmp_path, words, message):
    areas(ops="hang")
    with pytest.raises((ValueError, OSError), match=message):
        run.main(["--out", str(tmp_path / "suite"), *words])


def test_every_area_has_its_program():
    for found in run.AREAS.values():
        for name, area in found.items():
            assert (run.HERE / area.command[0]).is_file(), f"{name}: benchmarks/{area.command[0]} is not there"
    assert sum(area.seconds for area in run.AREAS["cpu"].values()) <= 1800
    assert sum(area.seconds for area in run.AREAS["cuda"].values()) <= 540


def test_the_best_peer_counts_and_only_peers():
    row = {"ratios": {"torchvision": 4.0, "detectron2": 1.5, "plain PyTorch": 0.5}}
    assert least_ratio(row, ["torchvision", "detectron2"]) == 1.5
    assert least_ratio({}, ["torchvision"]) is None


def test_start_up_is_measured(repository, tmp_path):
    command = [sys.executable, "benchmarks/run.py", "--areas", "start-up", "--quick", "--peers", "none"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "suite")], cwd=repository, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document = json.loads((tmp_path / "suite.json").read_text())
    rows = {row["name"]: row["results"] for row in document["rows"]}
    assert rows["import on top of torch"].keys() == {"ours", "torch itself"}
    assert rows["memory after the import"]["ours"]["median"] > 50  # MiB, with torch
    assert 0 < rows["--help"]["ours"]["median"]
    Parsed((tmp_path / "suite.html").read_text())


@needs_browser
@pytest.mark.extras
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)], ids=["desktop", "phone"])
def test_in_a_browser(areas, suite, tmp_path, width, mobile):
    areas(ops="measure", step="fail")
    suite()
    with open_page(tmp_path / "suite.html", width=width, height=900, mobile=mobile) as page:
        light = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        page.colour_scheme("dark")
        dark = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert light.mean() > 180
        assert dark.mean() < 90
        assert [entry for entry in page.console() if entry["level"] in ("SEVERE", "WARNING")] == []
