"""The whole benchmark suite: every area, beside every peer that is here, as one JSON file and one page.

    python benchmarks/run.py                                          about 30 minutes on two cores
    python benchmarks/run.py --device cuda                            about 9 minutes on a GPU
    python benchmarks/run.py --areas ops,step --time-limit 600 --out /tmp/suite
    python benchmarks/run.py --peer detectron2=/src/detectron2 --peers torchvision,detectron2
    python benchmarks/run.py --compare benchmarks/results/suite.json  afterwards, as benchmarks/compare.py does

Writes OUT.json and OUT.html, by default benchmarks/results/suite.*; the page needs nothing else. Each area is a program
of its own, which runs by itself too, and has a share of the time; one that fails is named in the result, and the others
go on. Exit status: 0; 1 where an area failed or, with --compare, something became slower; 2 for a mistake.
docs/performance.md explains the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import compare
from benchmarks._options import add_suite_options, peer_paths
from benchmarks._page import render
from benchmarks._peers import LOADERS
from benchmarks._rows import write_document
from benchmarks._timing import RESULTS, machine
from maskrcnn_benchmark.apps.errors import user_errors

HERE = Path(__file__).resolve().parent
MEASURED, FAILED = "measured", "failed"
# What an area may take beyond its share: the work that it has begun, and its start.
_GRACE = 1.5
_GRACE_SECONDS = 60.0
_TAIL = 20  # lines of a failed area that are kept


@dataclass(frozen=True)
class Area:
    """A program that measures one thing.

    Args:
        command: file in this folder, and its arguments.
        seconds: its share of a run.
        peers: further names that its --peer takes, beside those of `benchmarks._peers`.
        out: the flag for the file with its rows.
    """

    command: tuple[str, ...]
    seconds: float
    peers: tuple[str, ...] = ()
    out: str = "--out"


_SPEED = ("--batch-sizes", "12,1", "--dtypes", "bfloat16", "--variants", "nhwc+cuda_graphs,nhwc")
AREAS: dict[str, dict[str, Area]] = {
    "cpu": {
        "start-up": Area(("startup.py",), 180, ("maskrcnn-benchmark", "nvidia")),
        "ops": Area(("ops.py",), 490),
        "step": Area(("cpu_network.py", "--task", "train"), 480),
        "inference": Area(("cpu_network.py", "--task", "inference"), 240),
        "data": Area(("data.py",), 130),
        "evaluation": Area(("evaluation.py",), 140),
        "scaling": Area(("scaling.py",), 140),
    },
    "cuda": {
        "train_speed": Area(("train_speed.py", "--device", "cuda", *_SPEED), 300, out="--rows"),
        "ops": Area(("ops.py", "--device", "cuda"), 140),
        "determinism": Area(("determinism.py", "--device", "cuda"), 100),
    },
}


def run_area(name: str, area: Area, args: argparse.Namespace, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one area in a process of its own.

    Args:
        name: of the area.
        area: what is run.
        args: of `make_parser`.
        seconds: its share of the time.

    Returns:
        What became of it (status, seconds, left_out, and error where it failed), and its document, empty then.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "rows.json")
        command = [sys.executable, str(HERE / area.command[0]), *area.command[1:], area.out, str(out)]
        command += ["--time-limit", f"{seconds:.0f}", *(["--quick"] if args.quick else [])]
        command += ["--peers", args.peers] if args.peers is not None else []
        for peer, path in peer_paths(args.peer).items():
            command += ["--peer", f"{peer}={path}"] if peer in (*LOADERS, *area.peers) else []
        error = _run(command, _GRACE * seconds + _GRACE_SECONDS)
        document: dict[str, Any] = {}
        if not error:
            try:
                document = compare.read(out)
            except (OSError, ValueError) as reason:
                error = f"it left no result: {reason}"
    entry: dict[str, Any] = {
        "status": FAILED if error else MEASURED,
        "seconds": round(time.perf_counter() - begin, 1),
        "command": " ".join(area.command),
        "left_out": document.get("left_out", []),
        "fits": document.get("fits", []),  # of the area scaling
    }
    return entry | ({"error": error} if error else {}), document


def _run(command: Sequence[str], limit: float) -> str:
    """Run a program and show what it prints; gives the reason where it failed, or ''."""
    process = subprocess.Popen(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    lines: list[str] = []
    assert process.stdout is not None
    alarm = signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
        status = process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        if process.poll() is None:  # Ctrl-C
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
    if status == -signal.SIGKILL:
        return f"it was ended after {limit:.0f} s, or for its memory\n" + "".join(lines[-_TAIL:])
    return f"exit status {status}\n" + "".join(lines[-_TAIL:]) if status else ""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the chosen areas; the suite's document.

    Raises:
        ValueError: an area is not known.
    """
    chosen = choose_areas(args.areas, args.device)
    total = args.time_limit or sum(area.seconds for area in chosen.values())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    begin, entries, rows, peers = time.perf_counter(), {}, [], {}
    left = dict(chosen)
    for name, area in chosen.items():
        # What an area before did not need goes to those after it.
        share = area.seconds / sum(each.seconds for each in left.values())
        del left[name]
        print(f"\n== {name}", flush=True)
        seconds = max(share * (total - (time.perf_counter() - begin)), 1.0)
        entries[name], document = run_area(name, area, args, seconds)
        rows += document.get("rows", [])
        peers |= {peer: found for peer, found in document.get("peers", {}).items() if not _is_known(peer, peers)}
    return {
        "rows": rows,
        "machine": {**machine(), "cores": os.cpu_count(), "load_before": load},
        "peers": peers,
        "areas": entries,
        "seconds": round(time.perf_counter() - begin, 1),
        "commit": commit(),
        "is_quick": args.quick,
    }


def check_peers(entries: Sequence[str]) -> None:
    """See that some area knows each peer of --peer.

    Raises:
        ValueError: none does.
    """
    known = {*LOADERS, *(name for areas in AREAS.values() for area in areas.values() for name in area.peers)}
    unknown = sorted(set(peer_paths(entries)) - known)
    if unknown:
        raise ValueError(f"--peer: there is no peer {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def _is_known(peer: str, peers: Mapping[str, str]) -> bool:
    """Whether a version of the peer is known already; absent in one area says nothing of the others."""
    return not peers.get(peer, "absent").startswith("absent")


def choose_areas(text: str | None, device: str) -> dict[str, Area]:
    """The areas of a comma-separated list, or all of a device, in the order of the suite.

    Raises:
        ValueError: one is not known.
    """
    areas = AREAS[device]
    names = list(areas) if text is None else [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(areas))
    if unknown:
        raise ValueError(f"--areas: there is no {', '.join(unknown)} on {device}; there are {', '.join(areas)}")
    return {name: area for name, area in areas.items() if name in names}


def commit() -> str:
    """What the checkout is at, with a + where files differ from it; '' outside of git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = "; ".join(f"on {device}: {', '.join(areas)}" for device, areas in AREAS.items())
    parser.add_argument("--areas", metavar="LIST", help=f"only these ({names})")
    add_suite_options(parser, device=True)
    parser.add_argument("--compare", metavar="OLD.json", help="then say what became slower since that result")
    parser.set_defaults(out=str(RESULTS / "suite"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, compare; returns the exit status."""
    args = make_parser().parse_args(arguments)
    check_peers(args.peer)
    former = compare.read(args.compare) if args.compare else None  # before half an hour of work
    document = run(args)
    stem = str(args.out).removesuffix(".json").removesuffix(".html")
    facts = {name: value for name, value in document.items() if name not in ("rows", "machine", "peers")}
    path = write_document(
        f"{stem}.json", document["rows"], machine=document["machine"], peers=document["peers"], **facts
    )
    written = json.loads(path.read_text(encoding="utf-8"))
    Path(f"{stem}.html").write_text(render(written), encoding="utf-8")
    failed = [name for name, entry in document["areas"].items() if entry["status"] == FAILED]
    print(f"\n{stem}.json and {stem}.html, {document['seconds']:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}")
    status = compare.tell(former, written) if former is not None else 0
    return 1 if failed else status


if __name__ == "__main__":
    with user_errors():
        sys.exit(main())
