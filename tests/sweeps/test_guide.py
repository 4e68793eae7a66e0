"""The commands of docs/sweeps.md as they are printed there, on the demo with fewer pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maskrcnn_benchmark.apps.hydra_settings import OWN_KEYS, TABLE

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = (REPOSITORY / "docs" / "sweeps.md").read_text(encoding="utf-8")
DEMO = Path("configs", "demo", "mask_rcnn_R_18_FPN_shapes.yaml")
BLOCKS = [block for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL) if "python tools/" in block]
NEEDED = {
    "sweep=optuna": "hydra_plugins.hydra_optuna_sweeper",
    "launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What the commands see of the repository: the tools, and the demo's config with 24 and 8 pictures."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "tools").symlink_to(REPOSITORY / "tools")
    (folder / DEMO).parent.mkdir(parents=True)
    text = (REPOSITORY / DEMO).read_text(encoding="utf-8")
    small = text.replace("num_images: 2000", "num_images: 24").replace("num_images: 100", "num_images: 8")
    assert small.count("num_images: 24") == small.count("num_images: 8") == 1
    (folder / DEMO).write_text(small, encoding="utf-8")
    return folder


def test_the_guide_names_every_key():
    text = GUIDE
    for key in {row.key for row in TABLE} | set(OWN_KEYS):
        assert f"`{key}" in text or f".{key.rpartition('.')[2]}" in text or f"`{key.rpartition('.')[2]}`" in text, key


def test_the_guide_names_every_choice():
    for group in ("data", "loggers"):
        row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{group}="))
        assert {path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")} <= set(re.findall(r"\w+", row))


@pytest.mark.extras
@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block.splitlines()[-1])[20:60])
def test_commands_run_as_printed(checkout, block):
    pytest.importorskip("hydra", reason="hydra-core is not installed (extra sweeps)")
    for word, module in NEEDED.items():
        if word in block:
            pytest.importorskip(module, reason="the extra that the command installs is not there")
    before = set(checkout.rglob("model_final.pth"))
    commands = "".join(line for line in block.splitlines(keepends=True) if not line.startswith("pip install"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=checkout, capture_output=True, text=True, timeout=550,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(checkout / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    jobs = 4 if "batch_size=2,4" in block else 2 if " -m " in block else 0 if "debug" in block else 1
    assert len(set(checkout.rglob("model_final.pth")) - before) == jobs
