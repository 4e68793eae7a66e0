"""Live code: the image starts what a repository holds, at the commit or tag that the task names."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from maskrcnn_benchmark.ops import backend_info
from tests.ymir import small
from tests.ymir.platform import runner
from tests.ymir.platform.backend import Platform
from tests.ymir.platform.photos import draw
from tests.ymir.platform.producer import Order

NAME = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
# An executor of somebody else's: no package of ours, only the protocol.
STRANGE = """
import os, time, yaml
{extra}
env = yaml.safe_load(open(os.environ["YMIR_ENV_FILE"]))
rows = [line.strip() for line in open(env["input"]["candidate_index_file"]) if line.strip()]
with open(env["output"]["mining_result_file"], "w") as file:
    file.writelines(f"{{row}}\\t{{-index}}\\n" for index, row in enumerate(rows))
draft = env["output"]["root_dir"] + "/draft"
with open(draft, "w") as file:
    file.write(f"{{env['task_id']}}\\t{{time.time()}}\\t1.00\\t2\\t0\\n")
os.rename(draft, env["output"]["monitor_file"])
print("{word}, in", os.path.basename(os.getcwd()))
"""


def git(folder, *words):
    return subprocess.run(["git", *NAME, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


class Repository:
    """A bare repository that anybody may clone.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder):
        self.work, self.bare = folder / "work", folder / "code.git"
        git(folder, "init", "-q", "-b", "main", str(self.work))
        git(folder, "init", "-q", "--bare", "-b", "main", str(self.bare))
        git(self.bare, "config", "uploadpack.allowFilter", "true")
        git(self.work, "remote", "add", "origin", str(self.bare))

    def commit(self, files, tag=""):
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.work, "add", "-A")
        git(self.work, "commit", "-qm", "code")
        if tag:
            git(self.work, "tag", tag)
        git(self.work, "push", "-q", "--tags", "origin", "main")
        return git(self.work, "rev-parse", "HEAD")

    @property
    def url(self):
        return f"file://{self.bare}"


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "sandbox" / "code"  # below a folder that the container sees
    folder.mkdir(parents=True)
    return Repository(folder)


def execute(tmp_path, url, revision, **options):
    platform = Platform(tmp_path)
    order = Order(["mining"], candidates=draw(4), settings=small.mining(mining_algorithm="random"))
    order.settings |= {"git_url": url, "git_branch": revision}
    job = platform.prepare(order)
    return platform, runner.run(job, shown=[tmp_path / "sandbox" / "code"], **options)


def test_the_commit_that_is_named_runs(tmp_path, code):
    """Not the newest one; start.py comes first, and it is found in the folder ymir too."""
    first = code.commit({"ymir/start.py": STRANGE.format(word="first", extra="")}, tag="v1")
    code.commit({"ymir/start.py": STRANGE.format(word="second", extra=""), "start.py": "raise SystemExit(9)\n"})
    for revision in (first, "v1"):
        platform, run = execute(tmp_path, code.url, revision)
        assert platform.finish(run).code == 0, run.log
        assert "first, in" in run.log
        assert "second" not in run.log


@pytest.mark.slow
def test_its_requirements_are_installed(tmp_path, code):
    wheel = tmp_path / "sandbox" / "code" / "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mine.py", "WORD = 'mine was installed'\n")
        archive.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        archive.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("mine-1.dist-info/RECORD", "")
    revision = code.commit({
        "start.py": STRANGE.format(word="with requirements", extra="import mine; print(mine.WORD)"),
        "extra-requirements.txt": f"--no-index\n{wheel}\n",
    })  # fmt: skip
    # As in the image, where there is no virtual environment: Python itself, which lets a user add packages of his own.
    python = Path(sys.base_prefix, "bin", "python3")
    command = [str(python), "tools/ymir_start.py"]
    platform, run = execute(tmp_path, code.url, revision, command=command, PYTHONPATH=sysconfig.get_path("purelib"))
    assert platform.finish(run).code == 0, run.log
    assert "mine was installed" in run.log


@pytest.mark.parametrize(("revision", "code_of_error", "word"), [("", 300001, "git_branch"), ("v9", 300001, "v9")])
def test_a_revision_that_is_missing(tmp_path, code, revision, code_of_error, word):
    code.commit({"start.py": "raise SystemExit(9)\n"})
    _, run = execute(tmp_path, code.url, revision)
    assert run.status != 0
    assert run.last.code == code_of_error
    assert word in run.last.message


def test_a_repository_that_is_not_there(tmp_path, code):
    _, run = execute(tmp_path, f"{code.url}.none", "v1")
    assert (run.last.state, run.last.code) == (4, 300301)
    assert f"{code.url}.none" in run.last.message


@pytest.mark.slow
def test_this_program_as_live_code(tmp_path, code, repository):
    """A commit of ours, with settings of the repository under those of the task, and with the kernels of the image."""
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(code.bare) + ".ours"], check=True)
    ours = code.bare.with_name("code.git.ours")
    git(ours, "config", "uploadpack.allowFilter", "true")
    revision = git(ours, "rev-parse", "HEAD")
    platform = Platform(tmp_path)
    photos = draw(8)
    settings = small.training(2, val_interval=2) | {
        "git_url": f"file://{ours}", "git_branch": revision,
        "code_config": "docker/ymir/img-man/det/training-template.yaml",
    }  # fmt: skip
    order = Order(["training"], train=photos[:5], val=photos[5:], settings=settings, export_format="ark:raw")
    job = platform.prepare(order)
    outcome = platform.finish(runner.run(job, shown=[tmp_path / "sandbox" / "code"]))
    assert outcome.code == 0, outcome.run.log[-3000:]
    assert list(outcome.result["model_stages"]) == ["iter_0000002"], "max_iter of the task, not of the template"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "csrc"], cwd=repository).returncode
    if backend_info()["extension"] and not changed:
        assert "compiled kernels" not in outcome.run.log, "it would say that they are not available"
