"""tools/train_hydra.py as people start it: real training of a tiny network, in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from maskrcnn_benchmark.checkpoint.files import read_weights
from maskrcnn_benchmark.config import cfg
from tests.apps.tiny_run import CONFIG, DATA_KEYS, OPTIONS
from tests.data.tiny_coco import write_tiny_coco

REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN_HYDRA, TRAIN_NET = (REPOSITORY / "tools" / name for name in ("train_hydra.py", "train_net.py"))

pytestmark = [pytest.mark.extras, pytest.mark.slow]
pytest.importorskip("hydra", reason="hydra-core is not installed (extra sweeps)")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a tiny data set and tiny.yaml, whose runs take a second; one folder keeps the packed data set."""
    folder = tmp_path_factory.mktemp("sweeps")
    data = write_tiny_coco(folder / "data")
    config = cfg.clone()
    config.merge_from_file(CONFIG)
    words = {**OPTIONS, **DATA_KEYS, "DATASETS.CUSTOM": str(data.custom("tiny")), "CPU_THREADS": 1}
    config.merge_from_list([str(word) for pair in words.items() for word in pair])
    (folder / "tiny.yaml").write_text(config.dump(), encoding="utf-8")
    return folder


def environment(workshop, **further):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "DATA_DIR"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(workshop / "cache"), **further}


@pytest.fixture
def start(workshop, tmp_path):
    """``start(word, ...)``: tools/train_hydra.py in tmp_path, with tiny.yaml."""

    def run(*words, status=0, program=TRAIN_HYDRA, **further):
        first = [f"config_file={workshop / 'tiny.yaml'}"] if program == TRAIN_HYDRA else []
        done = subprocess.run(
            [sys.executable, str(program), *map(str, words), *first],
            cwd=tmp_path, env=environment(workshop, **further), capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


def only(folder):
    """The folder of the only run below this one."""
    (found,) = {path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")}
    return found


def assert_same_run(one, other):
    """Two output folders hold the same weights, momentum, figures and detections."""
    first, second = (read_weights(str(folder / "model_final.pth")) for folder in (one, other))
    assert first["model"].keys() == second["model"].keys()
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
    for state, further in zip(first["optimizer"]["state"].values(), second["optimizer"]["state"].values(), strict=True):
        assert torch.equal(state["momentum_buffer"], further["momentum_buffer"])
    for file in ("bbox.json", "segm.json"):
        assert (one / "inference/tiny" / file).read_bytes() == (other / "inference/tiny" / file).read_bytes()
    assert (one / "trace.jsonl").read_text() == (other / "trace.jsonl").read_text()


def test_a_grid_equals_single_runs_of_train_net_bit_for_bit(start, workshop, tmp_path):
    start("-m", "hparams.lr=0.005,0.01", "hparams.batch_size=1,2", "experiment_name=grid")
    (sweep,) = (tmp_path / "multirun" / "grid").glob("*/*")
    assert {path.name for path in sweep.iterdir()} == {"0", "1", "2", "3", "multirun.yaml"}
    weights = []
    for number, (lr, batch) in enumerate([(0.005, 1), (0.005, 2), (0.01, 1), (0.01, 2)]):
        job = sweep / str(number)
        overrides = yaml.safe_load((job / ".hydra" / "overrides.yaml").read_text())
        assert {f"hparams.lr={lr}", f"hparams.batch_size={batch}"} <= set(overrides)
        assert "Start training" in (job / "train_hydra.log").read_text()
        plain = tmp_path / f"plain{number}"
        start(
            "--config-file", workshop / "tiny.yaml", "OUTPUT_DIR", plain,
            "SOLVER.BASE_LR", lr, "SOLVER.IMS_PER_BATCH", batch, program=TRAIN_NET,
        )  # fmt: skip
        assert_same_run(job, plain)
        weights.append(read_weights(str(job / "model_final.pth"))["model"])
    assert not any(torch.equal(weights[0][name], weights[3][name]) for name in ["rpn.head.conv.weight"])


def test_a_run_lies_in_outputs_with_its_settings(start, tmp_path):
    start("experiment_name=first", "cfg.SOLVER.STEPS=[2,3]", "opts=[SOLVER.GAMMA,0.5]", "hparams.max_iter=2")
    run = only(tmp_path / "outputs" / "first")
    assert len(run.relative_to(tmp_path / "outputs").parts) == 3  # experiment, day, time
    config = yaml.safe_load((run / "config.yml").read_text())
    assert (config["SOLVER"]["STEPS"], config["SOLVER"]["GAMMA"], config["SOLVER"]["MAX_ITER"]) == ([2, 3], 0.5, 2)
    assert config["TRACKING"]["EXPERIMENT"] == "first"
    assert config["TRACKING"]["NAME"] == str(run.relative_to(tmp_path))
    names = {"hydra.yaml", "config.yaml", "overrides.yaml"}
    assert names == {path.name for path in (run / ".hydra").iterdir()}
    assert {"model_final.pth", "log.txt", "train_hydra.log", "dllogger.out", "metrics.jsonl"} <= set(os.listdir(run))
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.parametrize(
    "words", [("debug=True", "experiment_name=__debug__"), ("-m", "debug=1", "hparams.lr=0.1,0.2")]
)
def test_a_debug_run_takes_one_batch_of_each_and_leaves_nothing(start, tmp_path, words):
    done = start(*words)
    jobs = 2 if "-m" in words else 1
    for stage in ("training", "validation", "test"):
        assert done.stdout.count(f"Debug run: 1 batch(es) of {stage}") == jobs
    assert done.stdout.count("Start training at iteration 0 of 1") == jobs
    assert done.stdout.count("Only 2 of 6 images have predictions") == 2 * jobs  # the batch of two, twice
    assert list(tmp_path.iterdir()) == []


def test_a_debug_run_leaves_what_was_there(start, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    start("debug=True", "hydra.run.dir=mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_interrupted_run_is_marked_and_goes_on(start, workshop, tmp_path, number, status):
    words = [f"config_file={workshop / 'tiny.yaml'}", "hparams.max_iter=100000", "hydra.run.dir=run"]
    child = subprocess.Popen(
        [sys.executable, str(TRAIN_HYDRA), *words],
        cwd=tmp_path, env=environment(workshop), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "run" / "last_checkpoint").exists():
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(number)
    _, errors = child.communicate(timeout=100)
    assert child.returncode == status, errors
    marked = tmp_path / "run__interrupted__"
    assert f"hydra.run.dir={marked}" in errors
    assert [path.name for path in tmp_path.iterdir()] == [marked.name]
    last = int(json.loads((marked / "manifest.json").read_text())["end"]["iteration"])
    start(f"hydra.run.dir={marked}", f"hparams.max_iter={last + 2}")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(json.loads((tmp_path / "run" / "manifest.json").read_text())["starts"]) == 2
    assert (tmp_path / "run" / "model_final.pth").exists()


def test_wrong_settings_end_in_a_sentence(start, tmp_path):
    done = start("hparams.batchsize=3", status=1)
    assert "Could not override 'hparams.batchsize'" in done.stderr
    assert "use +hparams.batchsize=3" in done.stderr
    assert done.stderr.endswith("Did you mean hparams.batch_size?\n")
    done = start("hparams.batch_size=many", status=2)
    assert "error: hparams.batch_size=many: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in start("hparams.batch_size=many", status=1, HYDRA_FULL_ERROR="1").stderr
    assert "no such figure" in start("objective=bbox.mAP", status=2).stderr
    assert "without torchrun" in start(status=2, WORLD_SIZE="2").stderr


def test_one_wrong_job_does_not_keep_the_others_from_running(start, tmp_path):
    done = start("-m", "cfg.SOLVER.WARMUP_METHOD=cubic,constant", "hparams.max_iter=2", status=2)
    assert "WARMUP_METHOD" in done.stderr
    (sweep,) = (tmp_path / "multirun" / "Default").glob("*/*")
    assert not (sweep / "0" / "model_final.pth").exists()
    assert (sweep / "1" / "model_final.pth").exists()


def test_without_hydra_the_extra_is_named(tmp_path):
    hidden = tmp_path / "hydra.py"
    hidden.write_text("raise ImportError('no hydra here')")
    done = subprocess.run(
        [sys.executable, str(TRAIN_HYDRA)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'maskrcnn_benchmark[sweeps]'" in done.stderr


@pytest.mark.parametrize(
    ("choice", "module", "extra"),
    [
        ("hydra/sweeper=optuna", "hydra_optuna_sweeper", "sweeps-optuna"),
        ("hydra/launcher=joblib", "hydra_joblib_launcher", "sweeps-launchers"),
        ("hydra/launcher=submitit_slurm", "hydra_submitit_launcher", "sweeps-launchers"),
    ],
)
def test_without_a_plug_in_its_extra_is_named(start, tmp_path, choice, module, extra):
    # What Hydra says where the plug-in is not: its modules cannot be imported in this process.
    hider = tmp_path / "hide" / "sitecustomize.py"
    hider.parent.mkdir()
    hider.write_text(f"import sys\nsys.modules['hydra_plugins.{module}'] = None\n")
    done = start("-m", choice, status=1, PYTHONPATH=str(hider.parent))
    assert f"pip install 'maskrcnn_benchmark[{extra}]'" in done.stderr


def test_optuna_maximises_the_ap_and_keeps_its_study(start, tmp_path):
    optuna = pytest.importorskip("optuna", reason="optuna is not installed (extra sweeps-optuna)")
    start(
        "-m", "+sweep=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.study_name=lr", "hparams.max_iter=2",
        "hydra.sweeper.storage=sqlite:///study.db", "hparams.lr=tag(log,interval(0.001,0.1))", "objective=bbox.AR100",
    )  # fmt: skip
    study = optuna.load_study(study_name="lr", storage=f"sqlite:///{tmp_path / 'study.db'}")
    (sweep,) = (tmp_path / "multirun" / "Default").glob("*/*")
    assert study.direction.name == "MAXIMIZE"
    assert len(study.trials) == 3
    for trial in study.trials:
        config = yaml.safe_load((sweep / str(trial.number) / "config.yml").read_text())
        assert config["SOLVER"]["BASE_LR"] == trial.params["hparams.lr"]
        end = json.loads((sweep / str(trial.number) / "manifest.json").read_text())["end"]
        assert trial.value == end["evaluation"]["bbox"]["AR100"]
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(trial.value for trial in study.trials)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_processes_of_their_own(start, tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher", reason="extra sweeps-launchers")
    further = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else ["hydra.launcher.timeout_min=9"]
    start(
        "-m", f"hydra/launcher={launcher}", *further, "hparams.seed=1,2", "hparams.max_iter=2", "hparams.num_workers=1"
    )
    (sweep,) = (tmp_path / "multirun" / "Default").glob("*/*")
    start("hparams.seed=2", "hparams.max_iter=2", "hydra.run.dir=alone")
    assert_same_run(sweep / "1", tmp_path / "alone")
    assert (sweep / "0" / "model_final.pth").exists()


def test_two_devices_are_two_processes_of_train_net(start, workshop, tmp_path):
    start("trainer.devices=2", "hydra.run.dir=two", "hparams.max_iter=2")
    plain = tmp_path / "plain"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(TRAIN_NET)]
    words = ["--config-file", workshop / "tiny.yaml", "OUTPUT_DIR", plain, "SOLVER.MAX_ITER", 2]
    subprocess.run([*launcher, *map(str, words)], cwd=tmp_path, env=environment(workshop), check=True, timeout=300)
    assert_same_run(tmp_path / "two", plain)
    done = start("trainer.devices=2", "hydra.run.dir=three", "cfg.SOLVER.WARMUP_METHOD=cubic", status=2)
    assert "training on 2 devices ended with status" in done.stderr


def completions(shell, script, workshop):
    done = subprocess.run(
        [shell, "-c", script], cwd=REPOSITORY, env=environment(workshop), capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


BASH = """
source scripts/hydra/tab_completion_bash.sh tools/train_hydra.py
COMP_LINE="python tools/train_hydra.py {typed}"; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD=2
COMP_WORDS=(python tools/train_hydra.py "{typed}")
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
source scripts/hydra/tab_completion_fish.fish tools/train_hydra.py
complete -C 'python tools/train_hydra.py {typed}'
"""


@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("fish", FISH)])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("hparams.b", {"hparams.batch_size="}),
        ("loggers=", {f"loggers={name}" for name in ("none", "basic", "mlflow", "neptune", "clearml", "wandb")}),
        ("cfg.SOLVER.BA", {"cfg.SOLVER.BASE_LR="}),
    ],
)
def test_tab_completes_in_a_real_shell(workshop, shell, script, typed, offered):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert completions(shell, script.format(typed=typed), workshop) == offered
