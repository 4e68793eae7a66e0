"""The shell scripts, run for real around stub programs: what they pass on, what they say, how they end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHELL_FILES = sorted(
    [
        *REPOSITORY.glob("scripts/*.sh"),
        *REPOSITORY.glob("scripts/slurm/*.sbatch"),
        *REPOSITORY.glob("download_*.sh"),
        REPOSITORY / ".ci" / "run",
    ]
)
DEMO = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
JOB = "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# Stands for the interpreter: short programs (-c) and the data check run for real, everything else is written down.
STUB_PYTHON = r"""#!/usr/bin/env bash
case "$*" in
    *device_count*) echo "${STUB_GPUS:-0}"; exit 0 ;;
    *find_spec*) exit "${STUB_NO_TORCH:-0}" ;;
    *importlib.metadata*)
        if [[ -z "${STUB_NO_TORCH:-}" || -f "$STUB_LOG.torch" ]]; then echo 2.13.0+stub; fi
        exit 0 ;;
    -c* | --version) exec {python} "$@" ;;
    *check_data.py*) exit 0 ;;
    *check_nodes.py*) exec {python} "$@" ;;
esac
{python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" >>"$STUB_LOG"
if [[ "$1 $2" == "-m venv" ]]; then mkdir -p "$4/bin" && cp "$0" "$4/bin/python"; fi
if [[ "$*" == *"pip install"*" torch==2"* ]]; then touch "$STUB_LOG.torch"; fi
if [[ "$*" == *"setup.py build_ext"* ]]; then
    if [[ -n "${STUB_COMPILE_ERROR:-}" ]]; then echo "$STUB_COMPILE_ERROR"; exit 1; fi
    touch maskrcnn_benchmark/_C.so
fi
printf '%s\n' "${STUB_PRINTS:-}"
exit "${STUB_STATUS:-0}"
"""


class Checkout:
    """A copy of the scripts in a folder with an awkward name, with a stub for the interpreter."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / 'it\'s a "root"'
        shutil.copytree(REPOSITORY / "scripts", self.root / "scripts")
        for name in (DEMO, JOB, "csrc/module.cpp", "setup.py", "pyproject.toml"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("DATASETS: {TEST: (coco_2014_minival,)}\n")
        (self.root / "maskrcnn_benchmark").mkdir()
        self.log = folder / "calls"
        self.results = folder / "my results"
        self.stub = folder / "bin" / "python"
        self.stub.parent.mkdir()
        (self.stub.parent / "ninja").symlink_to(self.stub)
        self.stub.write_text(STUB_PYTHON.replace("{python}", sys.executable))
        self.stub.chmod(0o755)

    def run(self, script, *arguments, **environment):
        nodes = ("NNODES", "NODE_RANK", "MASTER_", "MAX_RESTARTS", "RDZV_", "PET_")
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CXX", *nodes))}
        keep |= {"PYTHON": str(self.stub), "STUB_LOG": str(self.log), "RESULTS": str(self.results), "SKIP_SETUP": "1"}
        return subprocess.run(
            ["bash", str(self.root / "scripts" / script), *arguments],
            env=keep | {name: str(value) for name, value in environment.items()},
            cwd=self.root.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def calls(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_shell_files_are_sound(path):
    content = path.read_bytes()
    assert b"\r" not in content
    assert os.access(path, os.X_OK) or path.name.endswith("lib.sh")
    subprocess.run(["bash", "-n", str(path)], check=True)
    if path.name != "lib.sh":
        assert b"pipefail" in content


def test_shellcheck():
    beside_python = Path(sys.executable).parent / "shellcheck"
    program = shutil.which("shellcheck") or (str(beside_python) if beside_python.exists() else None)
    if program is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, "-x", *map(str, SHELL_FILES)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_train_passes_everything_on(checkout):
    value = """("it's", "a $HOME `value`")"""
    done = checkout.run(
        "train.sh", DEMO, "--max_steps", "3", "SOLVER.MAX_ITER", "20", "DATASETS.TRAIN", value, DTYPE="fp32"
    )
    assert done.returncode == 0, done.stderr
    assert "running on the CPU" in done.stdout
    assert str(checkout.results) in done.stdout
    assert checkout.calls()[0] == [
        "-u", f"{checkout.root}/tools/train_net.py", "--config-file", f"{checkout.root}/{DEMO}",
        "--json-summary", f"{checkout.results}/dllogger.out", "--max_steps", "3",
        "OUTPUT_DIR", str(checkout.results), "MODEL.DEVICE", "cpu", "DTYPE", "float32", "NHWC", "True",
        "DATALOADER.HYBRID", "False", "SOLVER.MAX_ITER", "20", "DATASETS.TRAIN", value,
    ]  # fmt: skip
    assert checkout.calls()[1:] == [[f"{checkout.root}/scripts/show_predictions.py", str(checkout.results)]]


def test_train_on_gpus_is_the_published_job(checkout):
    done = checkout.run("train.sh", STUB_GPUS=8, PATH=fake_driver(checkout))
    assert done.returncode == 0, done.stderr
    assert checkout.calls() == [[
        "-u", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=8",
        f"{checkout.root}/scripts/worker.py", f"{checkout.root}/tools/train_net.py",
        "--config-file", f"{checkout.root}/{JOB}",
        "--json-summary", f"{checkout.results}/dllogger.out", "OUTPUT_DIR", str(checkout.results), "DTYPE", "float16",
        "NHWC", "True", "DATALOADER.HYBRID", "True",
    ]]  # fmt: skip


def test_environment_chooses(checkout):
    done = checkout.run(
        "train.sh",
        STUB_GPUS=4,
        PATH=fake_driver(checkout),
        GPU=2,
        CONFIG=DEMO,
        DTYPE="bf16",
        NHWC="False",
        HYBRID="False",
    )
    assert done.returncode == 0, done.stderr
    call = checkout.calls()[0]
    assert "--nproc_per_node=2" in call
    assert call[call.index("DTYPE") :][:6] == ["DTYPE", "bfloat16", "NHWC", "False", "DATALOADER.HYBRID", "False"]


def test_the_check_of_a_gpu_runs_its_parts(checkout, tmp_path):
    out = tmp_path / "out"
    driver = fake_driver(checkout)
    done = checkout.run("check_gpu.sh", out, "build", "tests", "speed", STUB_GPUS=1, PATH=driver, SPEED="--part 1/4")
    assert done.returncode == 1, done.stderr
    assert checkout.calls() == [
        ["setup.py", "build_ext", "--inplace"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--all", "tests"],
        ["benchmarks/train_speed.py", "--part", "1/4"],
    ]
    assert "build: passed" in done.stdout
    assert "tests: passed" in done.stdout
    assert "speed: failed" in done.stdout  # the stub leaves no table
    assert {path.name for path in out.iterdir()} == {"build.log", "tests.log", "speed.log"}


@pytest.mark.parametrize(("part", "said"), [("speeed", "no part speeed"), ("build", "no usable CUDA device")])
def test_the_check_of_a_gpu_says_what_is_wrong(checkout, tmp_path, part, said):
    done = checkout.run("check_gpu.sh", tmp_path / "out", part)
    assert done.returncode == 1
    assert said in done.stderr
    assert checkout.calls() == []


@pytest.mark.parametrize(("gpu", "said"), [("5", "has 4 CUDA"), ("two", "number of processes")])
def test_impossible_gpu_counts(checkout, gpu, said):
    done = checkout.run("train.sh", STUB_GPUS=4, PATH=fake_driver(checkout), GPU=gpu)
    assert done.returncode != 0
    assert said in done.stderr
    assert checkout.calls() == []


def fake_driver(checkout):
    program = checkout.stub.parent / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def test_a_failed_run_fails(checkout):
    done = checkout.run("train.sh", DEMO, STUB_STATUS=3, STUB_PRINTS="the reason")
    assert done.returncode == 3
    assert "Done" not in done.stdout
    assert "the reason" in (checkout.results / "joblog.log").read_text()


def test_missing_config(checkout):
    done = checkout.run("train.sh", "configs/none.yaml")
    assert done.returncode != 0
    assert "'configs/none.yaml' does not exist" in done.stderr


@pytest.mark.parametrize("script", ["eval.sh", "inference.sh"])
def test_evaluation_needs_a_model(checkout, script):
    done = checkout.run(script, JOB)
    assert done.returncode != 0
    assert "no trained model" in done.stderr
    assert checkout.run(script, JOB, "MODEL.WEIGHT", "w.pth").returncode == 0
    (checkout.results / "last_checkpoint").write_text("model_final.pth")
    assert checkout.run(script, JOB).returncode == 0


def test_inference_is_the_published_job(checkout):
    done = checkout.run("inference.sh", JOB, "MODEL.WEIGHT", "w.pth")
    assert done.returncode == 0, done.stderr
    call = checkout.calls()[0]
    assert "--skip-eval" in call
    assert call[call.index("TEST.IMS_PER_BATCH") + 1] == "1"
    assert call[call.index("DATASETS.TEST") + 1] == '("coco_2017_val",)'
    assert checkout.run("inference.sh").returncode != 0


def test_train_benchmark(checkout):
    line = "2026-01-01 maskrcnn_benchmark.trainer INFO: Total training time: 0:12:34.5 (0.5000 s / it)"
    done = checkout.run(
        "train_benchmark.sh", "fp32", "8", "False", "True", STUB_PRINTS=line, STUB_GPUS=8, PATH=fake_driver(checkout)
    )
    assert done.stdout.splitlines()[-1] == "Training perf is: 192.00 FPS", done.stderr  # 96 images in half a second
    call = checkout.calls()[0]
    assert call[call.index("SOLVER.IMS_PER_BATCH") + 1] == "96"
    assert {"500", "0.04", "(30000, 40000)", "float32"} <= set(call)
    tool = call.index(f"{checkout.root}/tools/benchmark.py")
    assert call[tool + 1 :][:2] == ["--config-file", f"{checkout.root}/{JOB}"]
    assert call[call.index("--iterations") + 1] == "0"  # as many as SOLVER.MAX_ITER says
    assert "--synthetic" not in call
    own = checkout.run(
        "train_benchmark.sh", "fp32", "1", "False", "False", "SOLVER.IMS_PER_BATCH", "2", STUB_PRINTS=line
    )
    assert own.stdout.splitlines()[-1] == "Training perf is: 4.00 FPS"


def test_inference_benchmark(checkout):
    line = "maskrcnn_benchmark.inference INFO: Total inference time: 0:04:55.8 (0.05 s / img per device, on 1 devices)"
    done = checkout.run("inference_benchmark.sh", "float16", "16", STUB_PRINTS=line)
    assert done.stdout.splitlines()[-1] == "Inference perf is: 20.00 FPS", done.stderr
    call = checkout.calls()[0]
    assert call[1] == f"{checkout.root}/tools/benchmark.py"
    assert call[call.index("TEST.IMS_PER_BATCH") + 1] == "16"
    assert call[call.index("DATASETS.TEST") + 1] == '("coco_2017_val",)'
    assert call[call.index("OUTPUT_DIR") + 1] == str(checkout.results)  # whose last_checkpoint is read
    assert checkout.run("inference_benchmark.sh", "float16").returncode != 0


BENCHMARKS = {
    "train_benchmark.sh": (["float32", "1", "False", "False"], "Training perf is: "),
    "inference_benchmark.sh": (["float32", "2"], "Inference perf is: "),
}


@pytest.mark.parametrize("script", BENCHMARKS)
def test_benchmark_without_data_has_a_fourth_way(tmp_path, script):
    arguments, _ = BENCHMARKS[script]
    done = subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / script), *arguments],
        env=os.environ | {
            "PYTHON": sys.executable, "SKIP_SETUP": "1", "DATA_DIR": str(tmp_path / "none"),
            "RESULTS": str(tmp_path / "r"),
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    for part in ("download_dataset.sh", "configs/demo", f"SYNTHETIC=1 bash scripts/{script}"):
        assert part in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", BENCHMARKS)
def test_benchmark_of_invented_images(tmp_path, script):
    arguments, line = BENCHMARKS[script]
    tiny = [
        "SOLVER.MAX_ITER",
        "8",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "INPUT.MIN_SIZE_TRAIN",
        "64",
        "INPUT.MIN_SIZE_TEST",
        "64",
    ]
    done = subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / script), *arguments, "--warmup", "1", *tiny],
        env=os.environ | {
            "PYTHON": sys.executable, "SKIP_SETUP": "1", "SYNTHETIC": "1", "CONFIG": DEMO, "RESULTS": str(tmp_path),
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    speed = float(done.stdout.splitlines()[-1].removeprefix(line).removesuffix(" FPS"))
    (row,) = json.loads((tmp_path / script.replace(".sh", ".json")).read_text())["rows"]
    assert speed == pytest.approx(row["images_per_second"], rel=0.01)
    assert row["synthetic"]


def test_benchmark_without_its_line_fails(checkout):
    done = checkout.run("inference_benchmark.sh", "float16", "16", STUB_PRINTS="nothing of use")
    assert done.returncode != 0
    assert "Inference perf" not in done.stdout
    assert "has no line" in done.stderr


@pytest.mark.parametrize("script", ["train.sh", "eval.sh"])
def test_without_data_there_are_three_ways(tmp_path, script):
    done = subprocess.run(
        ["bash", str(REPOSITORY / "scripts" / script)],
        env=os.environ | {
            "PYTHON": sys.executable, "SKIP_SETUP": "1", "DATA_DIR": str(tmp_path / "none"),
            "RESULTS": str(tmp_path / "r"),
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    for part in ("coco_2017", "download_dataset.sh", "DATA_DIR=", "configs/demo", "custom_data.md"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_setup_works_once_and_then_does_nothing(checkout):
    set_up = partial(checkout.run, "setup.sh", "--extra", "test", CXX="true")
    first = set_up()
    assert first.returncode == 0, first.stderr
    pip, compile_ = checkout.calls()
    assert pip[:3] == ["-m", "pip", "install"]
    assert "--no-build-isolation" in pip
    assert pip[-1] == ".[test]"
    assert Path(pip[pip.index("-c") + 1]).read_text() == "torch==2.13.0+stub\n", "pip must not exchange torch"
    assert compile_ == ["setup.py", "build_ext", "--inplace"]

    again = set_up()
    assert (again.returncode, again.stdout, len(checkout.calls())) == (0, "", 2)

    (checkout.root / "csrc" / "module.cpp").write_text("changed")
    set_up()
    assert checkout.calls()[2:] == [["setup.py", "build_ext", "--inplace"]]

    (checkout.root / "maskrcnn_benchmark" / "_C.so").unlink()
    set_up()
    assert len(checkout.calls()) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="DALI is for Linux")
def test_all_tests_install_what_they_need(checkout):
    done = checkout.run("test.sh", "--all", CXX="true", SKIP_SETUP="")
    assert done.returncode == 0, done.stderr
    pip, _, pytest_call = checkout.calls()
    assert pip[-1] == ".[test,dali]"
    assert pytest_call == ["-m", "pytest", "--all"]


def test_setup_of_a_new_machine(checkout):
    set_up = partial(checkout.run, "setup.sh", CXX="true", STUB_NO_TORCH=1)
    done = set_up()
    assert done.returncode == 0, done.stderr
    environment, torch, package, compile_ = checkout.calls()
    assert environment == ["-m", "venv", "--clear", f"{checkout.root}/.venv"]
    assert torch[:3] == ["-m", "pip", "install"]
    assert torch[-1] == "torch==2.13.0"
    assert "--index-url" not in torch
    assert package[-1] == ".[tensorboard]"
    assert compile_[0] == "setup.py"
    if shutil.which("nvidia-smi") is None and sys.platform == "linux":
        assert "2.8 GB" in done.stdout
        assert "TORCH_INDEX_URL" in done.stdout
    assert set_up().stdout == ""
    assert len(checkout.calls()) == 4


def test_torch_is_chosen_by_the_environment(checkout):
    chosen = {"TORCH_SPEC": "torch==2.12.0", "TORCH_INDEX_URL": "https://example.org/cpu"}
    done = checkout.run("setup.sh", CXX="true", STUB_NO_TORCH=1, **chosen)
    assert done.returncode == 0, done.stderr
    assert checkout.calls()[1][-3:] == ["--index-url", "https://example.org/cpu", "torch==2.12.0"]
    assert "2.8 GB" not in done.stdout


@pytest.mark.parametrize(
    ("printed", "remedy"),
    [
        ("fatal error: Python.h: No such file or directory", "python3-dev"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "MAX_JOBS=1"),
        ("error: unrecognized command-line option '-std=c++20'", "C++20"),
    ],
)
def test_a_failed_compile_ends_with_reason_and_remedy(checkout, printed, remedy):
    done = checkout.run("setup.sh", CXX="true", STUB_COMPILE_ERROR=printed)
    assert done.returncode == 1
    assert printed in done.stderr
    assert remedy in done.stderr
    assert checkout.run("setup.sh", CXX="true").returncode == 0, "it must try again"


def test_without_a_compiler_set_up_goes_on(checkout):
    done = checkout.run("setup.sh", CXX="no-such-compiler")
    assert done.returncode == 0
    assert "plain PyTorch kernels" in done.stderr
    assert len(checkout.calls()) == 1
    assert checkout.run("setup.sh", CXX="no-such-compiler", MASKRCNN_REQUIRE_EXT=1).returncode == 1


def test_ci_calls_the_tests_with_a_limit():
    text = (REPOSITORY / ".ci" / "run").read_text()
    assert "scripts/test.sh" in text
    assert "TIME_LIMIT" in text


def test_published_hashes():
    hashes = dict(reversed(line.split()) for line in (REPOSITORY / "hashes.md5").read_text().splitlines())
    assert hashes == {
        "train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
        "val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
        "annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
    }
    assert (REPOSITORY / "weights.md5").read_text() == "b19105fdd7baafb40480251377de18f2  R-50.pkl\n"
