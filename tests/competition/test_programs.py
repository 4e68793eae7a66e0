"""train.py and predict.py as the organisers start them, on 500 images: no flag, clean copies, the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata

import pytest
import torch

from maskrcnn_benchmark.apps.competition.check_submission import find_faults
from maskrcnn_benchmark.apps.competition.clean_copy import copy_code
from maskrcnn_benchmark.apps.competition.submission import KEYS
from maskrcnn_benchmark.apps.competition.test_images import TestImages
from maskrcnn_benchmark.apps.competition.verify import Copy, compare, validate_time
from maskrcnn_benchmark.apps.options.verify_submission import make_parser
from maskrcnn_benchmark.apps.time_budget import read_time_file
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.utils.digest import digest_tensors
from tests.competition.data_tree import REPOSITORY, write_config, write_tree

KERNELS = sorted((REPOSITORY / "maskrcnn_benchmark").glob("_C.*"))
ENDLESS = {"SOLVER__MAX_ITER": 1_000_000, "SOLVER__STEPS": [600_000, 900_000], "SOLVER__WARMUP_ITERS": 500}


class Copies:
    """Clean copies of the code, all on one folder of data.

    Args:
        folder: where everything lies.
    """

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "자료"
        self.train, self.information = write_tree(self.data)

    def copy(self, name):
        """A copy of the tracked files, with the kernels compiled."""
        target = self.folder / name
        copy_code(REPOSITORY, target)
        for kernels in KERNELS:
            os.symlink(kernels, target / "maskrcnn_benchmark" / kernels.name)
        return target

    def run(self, copy, program, config, *flags, cwd=None, **variables):
        """Start a program; gives what it printed."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        kept |= {"DATA_ROOT": str(self.data), "CONFIG": str(config), "SKIP_SETUP": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(copy / program), *flags], cwd=cwd or copy, env=kept | variables, capture_output=True,
            text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def both(self, copy, config, **options):
        """train.py, then predict.py."""
        self.run(copy, "train.py", config, **options)
        self.run(copy, "predict.py", config, **options)


def weights(copy):
    return torch.load(copy / "runs/train/official/model_final.pth", weights_only=True)


def submission(copy, name="best_preds.json"):
    return (copy / "runs/val/official" / name).read_bytes()


def check(copies, copy):
    """The submission is sound, and of all test images."""
    listed = TestImages.read(copies.data)
    for name in ("best_preds.json", "best_preds_cut.json"):
        assert find_faults(copy / "runs/val/official" / name, listed, KEYS, max_bytes=20_000_000) == []
    rows = json.loads(submission(copy))
    assert len({row["image_id"] for row in rows}) > 150
    record = json.loads((copy / "runs/val/official/prediction.json").read_text())
    assert (record["images"], record["finished"], record["missing"]) == (200, 200, [])


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("competition")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield Copies(folder)


def limited(copies, *, hours, name):
    """A run that the clock ends, in one copy, and its repetition without a clock, in another; both predict."""
    first, second = copies.copy(f"{name} 1"), copies.copy(f"{name} 2")
    after = 5 if hours < 0.01 else 200
    settings = {**ENDLESS, "SOLVER__MAX_TIME_FIT_AFTER": after, "SOLVER__CHECKPOINT_PERIOD": 10_000}
    config = write_config(copies.folder / f"{name}_limited.yaml", SOLVER__MAX_TIME=hours, **settings)
    copies.both(first, config)
    # As it is handed in: what the official run decided lies beside the config, and the organisers give no flag.
    repeating = write_config(copies.folder / f"{name}_repeating.yaml", **settings)
    shutil.copy(first / "runs/train/official/time_budget.json", repeating.with_suffix(".time.json"))
    copies.both(second, repeating, cwd=copies.folder, PYTHONHASHSEED="3")
    return first, second


def assert_repeated(copies, first, second):
    """Equal bits, and what the first one said of its end."""
    kept = read_time_file(str(first / "runs/train/official/time_budget.json"))
    states = [weights(copy) for copy in (first, second)]
    last = kept["fitted"]["max_iter"] if kept["last"] is None else kept["last"]
    assert [state["iteration"] for state in states] == [last, last]
    assert digest_tensors(states[0]["model"]) == digest_tensors(states[1]["model"])
    assert submission(first) == submission(second)
    assert submission(first, "best_preds_cut.json") == submission(second, "best_preds_cut.json")
    end = json.loads((first / "runs/train/official/manifest.json").read_text())["end"]
    assert (end["iteration"], end["reason"]) == (last, "time used up")
    assert kept["finished"]
    assert 1 <= last < 1_000_000
    check(copies, first)
    return kept


def test_a_run_that_the_clock_ends_is_repeated_by_two_commands_without_flags(copies):
    first, second = limited(copies, hours=14 / 3600, name="seconds")
    assert_repeated(copies, first, second)

    # A second start leaves what is there, and says so.
    before = {path: path.stat().st_mtime_ns for path in (first / "runs").rglob("*") if path.is_file()}
    printed = copies.run(first, "train.py", copies.folder / "seconds_limited.yaml", cwd=copies.folder)
    assert "came to its end" in printed
    assert before == {path: path.stat().st_mtime_ns for path in (first / "runs").rglob("*") if path.is_file()}
    assert not [path.name for path in (first / "runs/train").iterdir() if path.name != "official"]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # its repetition takes as long as the machine needs
def test_three_minutes_end_in_a_valid_file_and_are_repeated(copies):
    first, second = limited(copies, hours=0.05, name="minutes")
    kept = assert_repeated(copies, first, second)
    assert kept["fitted"]["after"] == 200
    assert 170 < kept["used_seconds"] < 190


@pytest.mark.slow
def test_the_same_commands_twice_without_a_clock(copies):
    config = write_config(copies.folder / "plain.yaml")
    results = []
    for name in ("plain 1", "plain 2"):
        copy = copies.copy(name)
        copies.both(copy, config, PYTHONHASHSEED=name[-1])
        check(copies, copy)
        results.append((digest_tensors(weights(copy)["model"]), submission(copy)))
    assert results[0] == results[1]


@pytest.mark.slow
def test_the_check_before_handing_in(copies, tmp_path):
    config = write_config(copies.folder / "verified.yaml", SOLVER__MAX_TIME=1.0, TEST__MAX_TIME=0.5)
    command = [sys.executable, str(REPOSITORY / "tools/verify_submission.py"), "--json", str(tmp_path / "report.json")]
    command += [
        "--work",
        str(tmp_path / "work"),
        "--data",
        str(copies.data),
        "--config-file",
        str(config),
        "--iterations",
        "6",
        "--test-images",
        "9",
    ]
    kept = {**os.environ, "SKIP_SETUP": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert [each["passed"] for each in checks] == [True] * (len(checks) - 1) + [None]
    names = " ".join(each["name"] for each in checks)
    for part in (
        "equal bits of weights",
        "equal bits of best_preds_cut.json",
        "time of training",
        "time of prediction",
    ):
        assert part in names
    # What would be too slow, or differ, is found.
    args = make_parser(REPOSITORY).parse_args([*command[2:], "--train-hours", "0.0001", "--predict-hours", "0.0001"])
    official = cfg.clone()
    official.merge_from_file(str(config))
    first, second = (
        Copy(tmp_path / "work" / name, {"train.py": 9.0, "predict.py": 9.0}) for name in ("first", "second")
    )
    assert [each.passed for each in validate_time(args, official, first)] == [False, False]
    path = second.predictions / "best_preds.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    assert [each.passed for each in compare(first, second)] == [True, False, True]


def test_the_data_are_as_awkward_as_they_may_be(copies):
    names = [path.name for path in (copies.data / "train/images").iterdir()]
    assert len(names) + len(list((copies.data / "test/images").iterdir())) == 500
    assert {unicodedata.normalize("NFC", name) == name for name in names} == {True, False}
    ids = [image["id"] for image in copies.train["images"]]
    assert ids != sorted(ids)
    for items, keys in ((copies.train["images"], {"width"}), (copies.train["annotations"], {"id", "area", "iscrowd"})):
        for key in keys:
            assert {key in item for item in items} == {True, False}
    assert "categories" not in copies.train


def test_copies_hold_what_is_handed_in(tmp_path):
    root = tmp_path / "code"
    for name in ("a.py", "folder/서울.txt", "runs/train/official/model.pth", ".venv/x.py", "package/_C.abi3.so"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert copy_code(root, tmp_path / "without git") == 2
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "a.py", "folder"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=root, check=True)
    (root / "untracked.py").write_text("")
    (root / "a.py").write_text("changed")
    assert copy_code(root, tmp_path / "with git") == 2
    assert (tmp_path / "with git/a.py").read_text() == "changed"
    assert (tmp_path / "with git/folder/서울.txt").is_file()


def test_requirements_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {each.split("#")[0].strip() for each in project["dependencies"]}
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    listed = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    assert listed == needed | {"setuptools>=77"}


@pytest.mark.slow
def test_requirements_can_be_installed():
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "-r", str(REPOSITORY / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
