"""Whether something became slower between two results of `benchmarks/run.py`, or of one area's file.

    python benchmarks/compare.py before.json after.json
    python benchmarks/compare.py before.json after.json --all      also what stayed the same

Exit status: 0 nothing became slower; 1 something did, or cannot be measured any more; 2 the files cannot be compared.

A machine is never quite the same twice, so a row is judged by its ratio to the peers that did the same work in the
same turns. Only a row without a peer is judged by its own figure, and only on the same machine. How far a figure may
move before it counts comes from the spread of its turns: beyond what Student's t lets happen once in a thousand rows,
and at least 5 %, or 15 % without a peer or between two machines. Memory is judged by itself, from 10 % on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._rows import FORMAT, OURS, Row, row_key, turn_ratios

FASTER, SLOWER, SAME, UNCERTAIN = "faster", "SLOWER", "same", "within noise"
FAILED, GONE, NEW, SKIPPED = "FAILS NOW", "not measured now", "new", "not comparable"
REGRESSIONS = (SLOWER, FAILED)
# What a figure may move, whatever its spread says.
WITH_PEER, WITHOUT_PEER, OTHER_MACHINE, MEMORY = 0.05, 0.15, 0.15, 0.10
_SAME = 0.02
# Quantiles of Student's t with 1, 2, ... degrees of freedom: 0.1 % lies outside, on both sides together.
_T = (637.0, 31.6, 12.9, 8.61, 6.87, 5.96, 5.41, 5.04, 4.78, 4.59, 4.44, 4.32, 4.22, 4.14, 4.07, 4.01)
_T_MANY = 3.6
_NORMAL = (
    1.2533  # standard over mean deviation of the normal distribution, and of its median over its mean: sqrt(pi / 2)
)
_LEAST_MEMORY = 8.0  # MiB that count
_MACHINE = ("cpu", "cpu_capability", "gpus", "system")  # what makes two machines the same


@dataclass(frozen=True)
class Verdict:
    """What became of a row.

    Attributes:
        key: of the row: area, name, case, threads, device.
        verdict: one of the words above.
        change: how many times better it is now; None where nothing was compared.
        bound: the change that would have counted, 0.05 for 5 %.
        against: the peer, "itself", or why nothing was compared.
    """

    key: tuple[str, str, str, int | None, str]
    verdict: str
    change: float | None = None
    bound: float | None = None
    against: str = ""


@dataclass(frozen=True)
class _Shift:
    """A figure's logarithm in two results: by how much it rose, and what would count."""

    by: float
    bound: float
    against: str


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts on all rows of two documents of `benchmarks._rows.write_document`.

    Raises:
        ValueError: one of them is in another form.
    """
    for document in (old, new):
        if document.get("format") != FORMAT:
            raise ValueError(f"a result has the format {document.get('format')!r}; this program reads {FORMAT}")
    same_machine = is_same_machine(old["machine"], new["machine"])
    usable = {name for name, version in old["peers"].items() if new["peers"].get(name, version) == version}
    changed = set(old["peers"]) - usable
    before, after = ({row_key(row): row for row in document["rows"]} for document in (old, new))
    verdicts = []
    for key, row in after.items():
        former = before.get(key)
        if former is None or ("error" in former and "error" not in row):
            verdicts.append(Verdict(key, NEW))
        elif "error" in former:
            verdicts.append(Verdict(key, SKIPPED, against="failed before and now"))
        elif "error" in row:
            verdicts.append(Verdict(key, FAILED, against=row["error"].strip().splitlines()[-1]))
        else:
            verdicts.append(_judge(key, former, row, changed, same_machine=same_machine))
    failed = {name for name, area in new.get("areas", {}).items() if area["status"] == "failed"}
    for key, row in before.items():
        if key not in after and "error" not in row:
            verdicts.append(Verdict(key, FAILED if key[0] in failed else GONE))
    return verdicts


def is_same_machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether times of the two may be set side by side."""
    return all(old.get(fact) == new.get(fact) for fact in _MACHINE)


def _judge(
    key: tuple[str, str, str, int | None, str], old: Row, new: Row, changed: set[str], *, same_machine: bool
) -> Verdict:
    if (old["unit"], old["better"]) != (new["unit"], new["better"]):
        return Verdict(key, SKIPPED, against=f"{old['unit']} then, {new['unit']} now")
    shift = _shift(old, new, changed, same_machine=same_machine)
    if shift is None:
        return Verdict(key, SKIPPED, against="no peer in both, and another machine")
    if abs(shift.by) > shift.bound:
        verdict = FASTER if shift.by > 0 else SLOWER
    else:
        verdict = SAME if abs(shift.by) <= _SAME else UNCERTAIN
    return Verdict(key, verdict, math.exp(shift.by), math.expm1(shift.bound), shift.against)


def _shift(old: Row, new: Row, changed: set[str], *, same_machine: bool) -> _Shift | None:
    if new["clock"] == "none":
        return _of_itself(old, new, MEMORY)
    floor = WITH_PEER if same_machine else OTHER_MACHINE
    shifts = []
    for peer in old["results"]:
        if peer not in new["results"] or peer in changed or peer == OURS or peer.startswith(f"{OURS},"):
            continue
        ratios = [[ratio for ratio in turn_ratios(row, peer) if ratio > 0] for row in (old, new)]
        if all(ratios):
            logs = ([math.log(ratio) for ratio in part] for part in ratios)
            shifts.append(_Shift(*_rise(*logs, floor), peer))
    if shifts:
        # Ours is in all of them: the peer in the middle is neither the one that had luck nor the one that had none.
        return sorted(shifts, key=lambda shift: shift.by)[len(shifts) // 2]
    return _of_itself(old, new, WITHOUT_PEER) if same_machine else None


def _of_itself(old: Row, new: Row, floor: float) -> _Shift | None:
    values = [row["results"][OURS]["samples"] for row in (old, new) if OURS in row["results"]]
    if len(values) < 2 or min(map(min, values)) <= 0:
        return None
    sign = -1 if new["better"] == "lower" else 1
    return _Shift(*_rise(*([sign * math.log(value) for value in samples] for samples in values), floor), "itself")


def _rise(old: Sequence[float], new: Sequence[float], floor: float) -> tuple[float, float]:
    """By how much the median of logarithms rose, and the rise that noise does not explain.

    The spread is taken from the mean distance to the median, which one bad turn moves less than a standard deviation.
    Single values have none: there the floor decides.
    """
    middles = [statistics.median(values) for values in (old, new)]
    freedom = len(old) + len(new) - 2
    error = 0.0
    for middle, values in zip(middles, (old, new), strict=True):
        if len(values) > 1:
            deviation = sum(abs(value - middle) for value in values) / math.sqrt(len(values) * (len(values) - 1))
            error = math.hypot(error, _NORMAL**2 * deviation / math.sqrt(len(values)))
    quantile = _T[freedom - 1] if 0 < freedom <= len(_T) else _T_MANY
    return middles[1] - middles[0], max(quantile * error, math.log1p(floor))


def report(verdicts: Sequence[Verdict], *, everything: bool) -> list[str]:
    """Lines for people: what changed, or all of it, and the counts."""
    order = (FAILED, SLOWER, FASTER, GONE, NEW, SKIPPED, UNCERTAIN, SAME)
    shown = [each for word in order for each in verdicts if each.verdict == word]
    if not everything:
        shown = [each for each in shown if each.verdict in (FAILED, SLOWER, FASTER, GONE)]
    lines = []
    for each in shown:
        area, name, case, threads, device = each.key
        where = ", ".join(
            filter(None, (case, f"{threads} threads" if threads else "", device if device != "cpu" else ""))
        )
        figures = ""
        if each.change is not None:
            figures = f"{each.change:6.2f} times (counts from {each.bound:.0%}), against {each.against}"
        lines.append(f"{each.verdict:<16}  {area}: {name} ({where})  {figures or each.against}".rstrip())
    counts = ", ".join(f"{count} {word}" for word in order if (count := sum(each.verdict == word for each in verdicts)))
    return [*lines, counts or "nothing in common"]


def read(path: str | Path) -> dict[str, Any]:
    """A result file.

    Raises:
        ValueError: it is no JSON object with rows.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(document, dict) or not {"format", "rows", "machine", "peers"} <= document.keys():
        raise ValueError(f"{path} is no result of benchmarks/run.py or of an area's --out")
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD.json")
    parser.add_argument("new", metavar="NEW.json")
    parser.add_argument("--all", action="store_true", help="also what stayed the same")
    args = parser.parse_args(arguments)
    try:
        return tell(read(args.old), read(args.new), everything=args.all)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def tell(old: Mapping[str, Any], new: Mapping[str, Any], *, everything: bool = False) -> int:
    """Compare two documents and print what came of it; returns the exit status.

    Raises:
        ValueError: they have nothing to compare.
    """
    verdicts = compare(old, new)
    if not any(each.verdict in (SLOWER, FASTER, SAME, UNCERTAIN, FAILED) for each in verdicts):
        raise ValueError(
            "the two results have no row that can be compared: other areas, or other machines without peers"
        )
    if not is_same_machine(old["machine"], new["machine"]):
        print("Two different machines: only ratios to peers are compared, and memory.")
    print("\n".join(report(verdicts, everything=everything)))
    return int(any(each.verdict in REGRESSIONS for each in verdicts))


if __name__ == "__main__":
    sys.exit(main())
