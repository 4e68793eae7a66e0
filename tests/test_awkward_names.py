"""Names with blanks, quotes, line ends, leading dashes and shell programs in them, through the scripts and tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_scripts import Checkout

REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = (
    "it's \"it\"", "$(touch pwned)", "`touch pwned`", "a;touch pwned&", "-rf", "--help", "two\nlines", "ü é 漢",
    "* ?[a]", "~", "a\\b", "%s%n", "a|b>c", "$HOME", "-n",
)  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


def new_calls(checkout: Checkout) -> list[list[str]]:
    calls = checkout.calls()
    checkout.log.unlink(missing_ok=True)
    return calls


@pytest.mark.parametrize("script", ["train.sh", "inference.sh"])
def test_configs_and_result_folders(checkout: Checkout, script: str) -> None:
    """A config is the first word or CONFIG, an absolute path or one in the working folder."""
    folder = checkout.root.parent
    for number, name in enumerate(NAMES):
        config = folder / f"{name}.yaml"
        config.write_text("DATASETS: {TEST: (coco_2014_minival,)}\n")
        given = str(config) if number % 2 and not name.startswith("-") else config.name
        option = ["MODEL.WEIGHT", name, "DATASETS.DATA_DIR", f"{name} {name}"]
        variables = {"RESULTS": folder / "results" / name, "DATA_DIR": name}
        if number // 2 % 2:
            done = checkout.run(script, *option, **variables, CONFIG=given)
        else:
            done = checkout.run(script, given, *option, **variables)
        assert done.returncode == 0, done.stderr
        call = new_calls(checkout)[0]
        passed = call[call.index("--config-file") + 1]
        assert Path(folder, passed) == config
        assert not passed.startswith("-"), "argparse would take it for an option"
        assert call[call.index("OUTPUT_DIR") + 1] == str(folder / "results" / name)
        assert call[-4:] == option
        assert (folder / "results" / name / "joblog.log").is_file()
    assert not list(folder.rglob("pwned"))


@pytest.mark.parametrize("script", ["train.sh", "eval.sh", "inference.sh"])
def test_configs_that_are_not_there(checkout: Checkout, script: str) -> None:
    for name in NAMES[::2]:
        done = checkout.run(script, f"none {name}.yaml")
        assert done.returncode == 1
        assert f"The config file 'none {name}.yaml' does not exist" in done.stderr
        assert new_calls(checkout) == []
    assert not list(checkout.root.parent.rglob("pwned"))


def test_a_benchmark_s_words(checkout: Checkout) -> None:
    for name in NAMES:
        checkout.run("train_benchmark.sh", name, name, name, name, "MODEL.WEIGHT", name)
        checkout.run("inference_benchmark.sh", name, name, "MODEL.WEIGHT", name, GPU=name)
    assert not list(checkout.root.parent.rglob("pwned"))


def test_a_folder_of_that_name_elsewhere(checkout: Checkout) -> None:
    """CDPATH makes "cd" go to other folders, and say so on stdout."""
    folder = checkout.root.parent
    (folder / "elsewhere" / "scripts").mkdir(parents=True, exist_ok=True)
    (folder / "elsewhere" / "results").mkdir(exist_ok=True)
    done = checkout.run("train.sh", RESULTS="results", CDPATH=folder / "elsewhere")
    assert done.returncode == 0, done.stderr
    call = new_calls(checkout)[0]
    assert call[call.index("OUTPUT_DIR") + 1] == str(folder / "results")


def test_the_tools_themselves(tmp_path: Path) -> None:
    """A name that is not there, to the real programs: one sentence that holds the name, and nothing else happens."""
    name = "$(touch pwned)\n`touch pwned`"
    config = tmp_path / f"{name}.yaml"
    config.write_text("_BASE_: " + '"' + name.replace("\n", "\\n") + ' none.yaml"\n')
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "train_net.py"), "--config-file", str(config), "OUTPUT_DIR", name],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: config file")
    assert "none.yaml does not exist" in done.stderr
    assert not list(tmp_path.rglob("pwned"))
