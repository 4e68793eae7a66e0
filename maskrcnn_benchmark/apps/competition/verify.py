"""The check before the code is handed in: tools/verify_submission.py."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.apps.competition.check_submission import find_faults
from maskrcnn_benchmark.apps.competition.clean_copy import copy_code, make_short_config, take_sample
from maskrcnn_benchmark.apps.competition.predict import RECORD
from maskrcnn_benchmark.apps.competition.submission import CUT, WHOLE
from maskrcnn_benchmark.apps.competition.test_images import TestImages, submission_keys
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.competition import PREDICT_FOLDER, REPEAT_SUFFIX, TRAIN_FOLDER
from maskrcnn_benchmark.apps.time_budget import read_decisions
from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.utils.digest import digest_file, digest_tensors
from maskrcnn_benchmark.utils.files import write_atomically

_WORDS = {True: "ok   ", False: "FAULT", None: "note "}
_SHOWN = 30  # lines of a program that failed


@dataclass
class Check:
    """One thing that was looked at.

    Args:
        name: in a few words.
        passed: None: a remark.
        text: a sentence with the figures.
    """

    name: str
    passed: bool | None
    text: str

    def __str__(self) -> str:
        return f"{_WORDS[self.passed]} {self.name}: {self.text}"


@dataclass
class Copy:
    """One clean copy and what its two programs left.

    Args:
        folder: of the copy.
        seconds: of each program.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def predictions(self) -> Path:
        """Folder of the submission."""
        return self.folder / PREDICT_FOLDER

    def digests(self) -> dict[str, str]:
        """What has to be the same in every copy."""
        weights = read_weights(str(self.folder / TRAIN_FOLDER / "model_final.pth"))["model"]
        files = {name: digest_file(self.predictions / name) for name in (WHOLE, CUT)}
        return {"weights": digest_tensors(weights), **files}


@user_errors()
def main(args: argparse.Namespace, cfg: CfgNode) -> int:
    """Run the program; gives its exit status.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the config tree with its defaults; stays as it is.
    """
    official = cfg.clone()
    official.merge_from_file(args.config_file)
    with tempfile.TemporaryDirectory(prefix="verify_submission_") as temporary:
        work = Path(args.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        checks = run_checks(args, official, work)
    for check in checks:
        sys.stdout.write(f"{check}\n")
    if args.json:
        text = json.dumps({"checks": [asdict(check) for check in checks]}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(args.json, lambda file: file.write(text.encode()))
    return int(any(check.passed is False for check in checks))


def run_checks(args: argparse.Namespace, cfg: CfgNode, work: Path) -> list[Check]:
    """All checks, in their order; those that need what has failed are left out.

    Args:
        args: parsed options of ``make_parser``.
        cfg: the official config.
        work: folder for the copies.
    """
    data, config = work / "DATA", work / "config.yaml"
    take_sample(Path(args.data), data, num_train=args.train_images, num_test=args.test_images)
    make_short_config(cfg, args.config_file, config, iterations=args.iterations)
    checks, copies = [], []
    for name in ("first", "second"):
        copy = Copy(work / name)
        count = copy_code(args.root, copy.folder)
        checks.append(Check(f"{name} copy", count > 0, f"{count} files"))
        copies.append(copy)
        for program in ("train.py", "predict.py"):
            # The second copy has another hash of strings, and is started from elsewhere.
            checks.append(run_program(copy, program, data, config, second=name == "second"))
            if not checks[-1].passed:
                return checks
    checks += compare(*copies)
    keys, listed = submission_keys(data), TestImages.read(data)
    for name, limit in ((WHOLE, None), (CUT, args.max_bytes)):
        faults = find_faults(copies[0].predictions / name, listed, keys, max_bytes=limit)
        checks.append(Check(name, not faults, "; ".join(faults) or "its objects are as they should be"))
    return [*checks, *validate_time(args, cfg, copies[0]), check_decisions(args.config_file)]


def run_program(copy: Copy, program: str, data: Path, config: Path, *, second: bool) -> Check:
    """Run one of the two programs without a flag, as the organisers do."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DATA_DIR")}
    kept |= {"DATA_ROOT": str(data), "CONFIG": str(config), "PYTHONHASHSEED": "7" if second else "0"}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(copy.folder / program)], cwd=data if second else copy.folder, env=kept,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    copy.seconds[program] = time.monotonic() - begin
    text = f"{copy.seconds[program]:.0f} s"
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-_SHOWN:])
        text = f"exit status {done.returncode}; its last lines:\n{last}"
    return Check(f"{program} in the {copy.folder.name} copy", done.returncode == 0, text)


def compare(first: Copy, second: Copy) -> list[Check]:
    """Equal bits of weights and submission."""
    ours, theirs = first.digests(), second.digests()
    return [
        Check(
            f"equal bits of {name}",
            ours[name] == theirs[name],
            ours[name] if ours[name] == theirs[name] else f"{ours[name]} and {theirs[name]}",
        )
        for name in ours
    ]


def validate_time(args: argparse.Namespace, cfg: CfgNode, copy: Copy) -> list[Check]:
    """What the whole data would take on this machine.

    Args:
        args: hours that are allowed, and iterations of the sample.
        cfg: the official config; reads SOLVER and TEST.
        copy: what was measured.
    """
    rows = (copy.folder / TRAIN_FOLDER / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    times = [row["time"] for row in map(json.loads, rows) if row.get("iteration") and "time" in row]
    per_iteration = sorted(times)[len(times) // 2]
    record: dict[str, Any] = json.loads((copy.predictions / RECORD).read_text(encoding="utf-8"))
    images = len(TestImages.read(Path(args.data)).ids)
    training = per_iteration * cfg.SOLVER.MAX_ITER + copy.seconds["train.py"] - per_iteration * args.iterations
    predicting = record["seconds_per_image"] * images + copy.seconds["predict.py"]
    found = []
    for name, seconds, hours, limit, key, text in (
        ("training", training, args.train_hours, cfg.SOLVER.MAX_TIME, "SOLVER.MAX_TIME",
         f"{cfg.SOLVER.MAX_ITER} iterations of {per_iteration:.4f} s"),
        ("prediction", predicting, args.predict_hours, cfg.TEST.MAX_TIME, "TEST.MAX_TIME",
         f"{images} images of {record['seconds_per_image']:.4f} s"),
    ):  # fmt: skip
        ends = 0 < limit <= hours
        told = f"{text}, about {seconds / 3600:.2f} h here; {hours:g} h are allowed, {key} is {limit:g}"
        found.append(Check(f"time of {name}", ends or seconds <= hours * 3600, told))
    return found


def check_decisions(config_file: str) -> Check:
    """Whether the organisers' run will end where the official one did."""
    path = Path(config_file).with_suffix(REPEAT_SUFFIX)
    if not path.is_file():
        text = f"{path} does not exist: a run that the clock ends or fits decides anew; keep the official run's there"
        return Check("decisions by the clock", None, text)
    decisions = read_decisions(str(path))
    return Check("decisions by the clock", True, f"{path} is repeated: {decisions.to_dict()}")
