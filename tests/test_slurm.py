"""The Slurm job, run as a plain script with Slurm's variables around stubs of Slurm's programs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_scripts import DEMO, JOB, REPOSITORY, Checkout
from tests.test_scripts_nodes import JOB_THAT_LISTENS, options

BATCH = REPOSITORY / "scripts" / "slurm" / "train.sbatch"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# One task a node, beside each other, and the highest status at the end, as srun does it. SLURM_HOSTS: the
# network namespaces that stand for the nodes.
SRUN = r"""#!/usr/bin/env bash
while [[ "$1" == --* ]]; do echo "$1" >>"$SLURM_STUBS/srun"; shift; done
pids=()
for ((node = 0; node < SLURM_NNODES; node++)); do
    host=()
    name="$(cut -d' ' -f$((node + 1)) <<<"$SLURM_HOSTS")"
    [[ -z "$name" ]] || host=(ip netns exec "$name")
    SLURM_NODEID=$node SLURM_PROCID=$node "${host[@]}" "$@" &
    pids+=($!)
    echo $! >>"$SLURM_STUBS/tasks"
done
highest=0
for pid in "${pids[@]}"; do
    status=0
    wait "$pid" || status=$?
    ((status <= highest)) || highest=$status
done
exit "$highest"
"""
SCANCEL = r"""#!/usr/bin/env bash
echo "$*" >>"$SLURM_STUBS/scancel"
kill -USR1 $(cat "$SLURM_STUBS/tasks")
"""
SCONTROL = r"""#!/usr/bin/env bash
if [[ "$1 $2" == "show hostnames" ]]; then tr , '\n' <<<"$3"; else echo "$*" >>"$SLURM_STUBS/scontrol"; fi
"""


class Slurm:
    """Stubs of Slurm's programs, and what they were told.

    Args:
        folder: for them.
        nodes: names or addresses of the nodes of the job.
    """

    def __init__(self, folder, nodes):
        self.folder = folder / "slurm stubs"
        self.folder.mkdir()
        self.programs = folder / "slurm_bin"
        self.programs.mkdir()
        for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        self.environment = {
            "SLURM_STUBS": str(self.folder), "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": ",".join(nodes),
            "SLURM_NNODES": str(len(nodes)), "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def told(self, program):
        file = self.folder / program
        return file.read_text().splitlines() if file.exists() else []


class SlurmCheckout(Checkout):
    """A checkout from which a job is submitted; Slurm runs a copy of the file from elsewhere."""

    def __init__(self, folder, nodes):
        super().__init__(folder)
        self.slurm = Slurm(folder, nodes)
        self.copy = folder / "slurm_script"
        shutil.copy(BATCH, self.copy)

    def start(self, *words, **environment):
        keep = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "NNODES", "RESULTS")}
        own = {"PYTHON": str(self.stub), "STUB_LOG": str(self.log), "SKIP_SETUP": "1"}
        own |= {"SLURM_SUBMIT_DIR": str(self.root), **self.slurm.environment}
        return subprocess.Popen(
            ["bash", str(self.copy), *words], env=keep | own | environment, cwd=self.root.parent,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def submit(self, *words, **environment):
        job = self.start(*words, **environment)
        printed, _ = job.communicate(timeout=60)
        return job.returncode, printed


def settings():
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", BATCH.read_text(), flags=re.MULTILINE))


def test_what_slurm_is_asked_for():
    asked = settings()
    assert asked["ntasks-per-node"] == "1"  # torchrun starts the processes
    assert asked["signal"] == "B:USR1@120"
    assert {"requeue", "open-mode", "nodes"} <= asked.keys()
    lines = BATCH.read_text().splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:]), "Slurm stops reading there"


def test_the_job_of_one_node(tmp_path):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    status, printed = checkout.submit("configs/e2e_mask_rcnn_R_50_FPN_1x.yaml", "SOLVER.MAX_ITER", "5 0")
    assert status == 0, printed
    call = checkout.calls()[0]
    assert call[:2] == ["-u", f"{checkout.root}/tools/train_net.py"]
    assert call[-2:] == ["SOLVER.MAX_ITER", "5 0"]
    assert call[call.index("OUTPUT_DIR") + 1] == f"{checkout.root}/results/slurm-4711"
    assert checkout.slurm.told("srun") == ["--nodes=1", "--ntasks-per-node=1", f"--chdir={checkout.root}"]
    assert checkout.slurm.told("scontrol") == []


def test_the_job_of_two_nodes(tmp_path):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1", "127.0.0.2"])
    status, printed = checkout.submit(JOB, RESULTS=str(tmp_path / "r"))
    assert status == 0, printed
    found = sorted((options(call)[0] for call in checkout.calls()), key=lambda each: each["rdzv_conf"])
    assert [each["rdzv_conf"].split(",")[0] for each in found] == ["is_host=False", "is_host=True"]
    assert {(each["nnodes"], each["rdzv_endpoint"], each["rdzv_id"]) for each in found} == {
        ("2", "127.0.0.1:14711", "slurm-4711")
    }
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"joblog.log", "joblog_node1.log"}


def test_evaluation_and_containers(tmp_path):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    own = {"CONTAINER": "/images/mask rcnn.sqsh", "DATA_DIR": "/data", "CONTAINER_MOUNTS": "/a:/b", "SCRIPT": "eval.sh"}
    status, printed = checkout.submit(JOB, "MODEL.WEIGHT", "w.pth", RESULTS="/tmp", **own)
    assert status == 0, printed
    assert "--container-image=/images/mask rcnn.sqsh" in checkout.slurm.told("srun")
    root = checkout.root
    assert f"--container-mounts={root}:{root},/tmp:/tmp,/data:/data,/a:/b" in checkout.slurm.told("srun")
    assert checkout.calls()[0][1] == f"{root}/tools/test_net.py"


def test_a_failed_job_fails_and_is_not_repeated(tmp_path):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    status, _ = checkout.submit(JOB, STUB_STATUS="3")
    assert status == 3
    assert checkout.slurm.told("scontrol") == []


def test_a_saved_job_goes_back_into_the_queue(tmp_path):
    """As when another job takes its place: the programs end by themselves, and the job's shell is told nothing."""
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    status, printed = checkout.submit(JOB, STUB_STATUS="75")
    assert status == 75
    assert checkout.slurm.told("scontrol") == ["requeue 4711"]
    assert "back into the queue" in printed


@pytest.mark.parametrize(("code", "status"), [("75", 75), ("1", 1)])
def test_two_minutes_before_the_end(tmp_path, code, status):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    program = f"\n  *train_net.py*) exec {sys.executable} -c '{JOB_THAT_LISTENS}' ;;\nesac\n"
    checkout.stub.write_text(checkout.stub.read_text().replace("\nesac\n", program, 1))
    job = checkout.start(DEMO, STUB_CODE=code)
    for line in job.stdout:
        if line == "ready\n":
            time.sleep(0.2)
            job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=30) == status
    assert checkout.slurm.told("scancel") == ["--signal=USR1 4711"]
    assert checkout.slurm.told("scontrol") == ["requeue 4711"], "it goes on from an older checkpoint too"


def test_submitted_from_elsewhere(tmp_path):
    checkout = SlurmCheckout(tmp_path, ["127.0.0.1"])
    status, printed = checkout.submit(JOB, SLURM_SUBMIT_DIR=str(tmp_path))
    assert status == 1
    assert "from the root of the checkout" in printed
    assert not Path(checkout.slurm.folder / "srun").exists()
