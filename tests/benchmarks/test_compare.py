"""Which changes between two results count: properties of made-up results, and the program on files."""

from __future__ import annotations

import copy
import json
import math
import random

import pytest

from benchmarks import compare
from benchmarks._rows import failed_row, make_row, turn_ratios, write_document

MACHINE = {"cpu": "A", "cpu_capability": "AVX2", "gpus": [], "system": "Linux", "torch": "2.13"}
PEERS = ("torchvision", "detectron2")


def make_document(seed, *, ours=1.0, everything=1.0, peers=PEERS, rounds=5, num_rows=40, noise=0.03, only=None):
    """Rows of about 10 ms whose turns are slower and faster together; ours, or all, times a factor."""
    generator, rows = random.Random(seed), []
    for index in range(num_rows):
        samples = {name: [] for name in ("ours", *peers)}
        own = ours if only is None or index == only else 1.0
        for _ in range(rounds):
            turn = everything * generator.lognormvariate(0, 0.3)
            for name, values in samples.items():
                factor = own if name == "ours" else 3.0
                values.append(10 * turn * factor * generator.lognormvariate(0, noise))
        rows.append(make_row("ops", f"op {index}", "case", samples, unit="ms", threads=1))
    return {"format": 1, "machine": MACHINE, "peers": dict.fromkeys(peers, "1.0"), "rows": rows}


def words(old, new):
    return [each.verdict for each in compare.compare(old, new)]


def test_the_same_file_twice_is_no_regression():
    document = make_document(0)
    assert set(words(document, document)) == {compare.SAME}


@pytest.mark.parametrize("peers", [PEERS, PEERS[:1]])
def test_noise_is_no_regression(peers):
    verdicts = [
        word for seed in range(20) for word in words(*(make_document(s, peers=peers) for s in (seed, seed + 50)))
    ]
    assert sum(word in (compare.SLOWER, compare.FASTER) for word in verdicts) <= len(verdicts) // 200


@pytest.mark.parametrize("factor", [0.3, 1.5, 4.0])
def test_a_slower_machine_is_no_regression(factor):
    found = words(make_document(0), make_document(1, everything=factor))
    assert compare.SLOWER not in found
    assert compare.FASTER not in found


def test_only_ours_slower_is_found_and_only_ours_faster_too():
    old = make_document(0)
    slower = compare.compare(old, make_document(1, ours=1.4))
    assert sum(each.verdict == compare.SLOWER for each in slower) >= 38
    assert all(each.change == pytest.approx(1 / 1.4, rel=0.2) for each in slower)
    assert sum(word == compare.FASTER for word in words(old, make_document(1, ours=1 / 1.4))) >= 38


def test_one_slower_row_is_the_one_that_is_named():
    found = compare.compare(make_document(0), make_document(1, ours=1.6, only=7))
    assert [each.key[1] for each in found if each.verdict == compare.SLOWER] == ["op 7"]


def test_bounds_follow_the_spread_of_the_turns():
    bounds = [
        compare.compare(*(make_document(seed, num_rows=1, noise=noise) for seed in (0, 1)))[0].bound
        for noise in (0.001, 0.1)
    ]
    assert bounds[0] == pytest.approx(compare.WITH_PEER)
    assert bounds[1] > 2 * bounds[0]


def test_higher_may_be_better():
    documents = [make_document(seed) for seed in (0, 1)]
    for document, factor in zip(documents, (1.0, 0.5), strict=True):
        samples = {"ours": [100 * factor, 101 * factor, 99 * factor], "torchvision": [50.0, 50.5, 49.5]}
        document["rows"] = [make_row("train_speed", "x", "y", samples, unit="images/s", better="higher")]
    (verdict,) = compare.compare(*documents)
    assert verdict.verdict == compare.SLOWER
    assert verdict.change == pytest.approx(0.5)


def test_without_a_peer_only_the_same_machine_counts():
    old, new = (make_document(seed, peers=(), ours=factor, noise=0) for seed, factor in ((0, 1.0), (0, 1.3)))
    for row in (*old["rows"], *new["rows"]):  # a quiet machine
        values = row["results"]["ours"]
        values["samples"] = [values["median"]] * 5
    assert set(words(old, new)) == {compare.SLOWER}
    other = new | {"machine": MACHINE | {"cpu": "B"}}
    assert set(words(old, other)) == {compare.SKIPPED}
    with pytest.raises(ValueError, match="no row that can be compared"):
        compare.tell(old, other)


def test_between_machines_ratios_need_more():
    old, new = (make_document(0, ours=factor, noise=0) for factor in (1.0, 1.1))
    assert set(words(old, new)) == {compare.SLOWER}
    assert set(words(old, new | {"machine": MACHINE | {"cpu": "B"}})) == {compare.UNCERTAIN}


def test_a_peer_of_another_version_is_no_measure():
    old = make_document(0, peers=PEERS, noise=0)
    new = copy.deepcopy(old) | {"peers": {"torchvision": "2.0", "detectron2": "1.0"}}
    for row in new["rows"]:
        row["results"]["torchvision"]["samples"] = [value / 2 for value in row["results"]["torchvision"]["samples"]]
    found = compare.compare(old, new)
    assert {(each.verdict, each.against) for each in found} == {(compare.SAME, "detectron2")}


def test_variants_of_ours_are_no_peers():
    samples = {"ours": [1.0, 1.0, 1.0], "ours, bfloat16": [2.0, 2.0, 2.0]}
    document = make_document(0) | {"rows": [make_row("step", "x", "y", samples, unit="s")]}
    assert compare.compare(document, document)[0].against == "itself"


def test_memory_is_judged_by_itself():
    rows = [
        make_row("step", "peak", "x", {"ours": [ours], "torchvision": [peer]}, unit="MiB", clock="none")
        for ours, peer in ((1000.0, 2000.0), (1200.0, 2400.0))
    ]
    old, new = (make_document(0) | {"rows": [row]} for row in rows)
    assert words(old, new) == [compare.SLOWER]
    assert words(new, old) == [compare.FASTER]


def test_what_fails_now_is_a_regression_and_what_is_missing_is_named():
    old, new = make_document(0, num_rows=3), make_document(0, num_rows=2)
    new["rows"][0] = failed_row("ops", "op 0", "case", "Traceback\nRuntimeError: no", threads=1)
    found = {each.key[1]: each for each in compare.compare(old, new)}
    assert found["op 0"].verdict == compare.FAILED
    assert found["op 0"].against == "RuntimeError: no"
    assert found["op 2"].verdict == compare.GONE
    new["areas"] = {"ops": {"status": "failed"}}
    assert {each.verdict for each in compare.compare(old, new) if each.key[1] == "op 2"} == {compare.FAILED}
    assert words(new, old)[0] == compare.NEW


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.4, 1)])
def test_the_program(tmp_path, capsys, factor, status):
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, ours in zip(paths, (1.0, factor), strict=True):
        document = make_document(0, ours=ours)
        write_document(path, document["rows"], machine=MACHINE, peers=document["peers"])
    assert compare.main([*map(str, paths)]) == status
    printed = capsys.readouterr().out
    assert ("40 SLOWER" in printed) == bool(status)
    assert ("40 same" in printed) != bool(status)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "no JSON file"), ("[]", "no result of"), ('{"rows": []}', "no result of"), (None, "No such file")],
)
def test_other_files_are_refused(tmp_path, capsys, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    assert compare.main([str(path), str(path)]) == 2
    assert message in capsys.readouterr().err


def test_another_format_is_refused(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": 99, "rows": [], "machine": {}, "peers": {}}))
    assert compare.main([str(path), str(path)]) == 2
    assert "format 99" in capsys.readouterr().err


def test_rows_keep_turns_and_ratios():
    row = make_row("ops", "x", "y", {"ours": [1.0, 2.0, 4.0], "other": [3.0, 4.0, 4.0]}, unit="ms")
    assert turn_ratios(row, "other") == [3.0, 2.0, 1.0]
    assert row["ratios"] == {"other": 2.0}
    assert row["results"]["other"]["median"] == 4.0
    assert math.isnan(turn_ratios(make_row("ops", "x", "y", {"ours": [0.0], "o": [1.0]}, unit="ms"), "o")[0])
    with pytest.raises(ValueError, match="no samples of other"):
        make_row("ops", "x", "y", {"ours": [1.0], "other": []}, unit="ms")
    with pytest.raises(ValueError, match="better is 'up'"):
        make_row("ops", "x", "y", {"ours": [1.0]}, unit="ms", better="up")
