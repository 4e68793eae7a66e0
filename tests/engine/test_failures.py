"""What is said when memory runs out, and what a debug bundle holds."""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.engine.debug_bundle import Faulty, save_bundle
from maskrcnn_benchmark.engine.failures import FailureOptions, explain
from maskrcnn_benchmark.engine.nonfinite import Failure
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.targets import Targets
from maskrcnn_benchmark.utils.memory import memory_use, ran_out_of_memory
from tests.engine.stand_ins import TinyLoader, make_run

CPU = torch.device("cpu")


class Hungry(nn.Module):
    """Asks for more memory than there is from the third batch on."""

    def __init__(self, ask):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.ask = ask
        self.calls = 0

    def forward(self, images, targets):
        self.calls += 1
        if self.calls == 3:
            self.ask()
        return {"loss": self.weight.sum()}


def ask_torch():
    torch.empty(2**50)


def ask_python():
    bytearray(2**60)


def ask_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")


@pytest.mark.parametrize("ask", [ask_torch, ask_python, ask_a_gpu])
def test_memory_that_runs_out_is_described(tmp_path, ask):
    *_, checkpointer = make_run(tmp_path)
    model = Hungry(ask)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    checkpointer.model, checkpointer.optimizer = model, optimizer
    scheduler = checkpointer.scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    arguments, failures = {"iteration": 0}, FailureOptions(most_positives=128)
    with pytest.raises(MemoryError) as error:
        do_train(model, TinyLoader(9), optimizer, scheduler, checkpointer, CPU, 2, arguments, failures=failures)
    message = str(error.value)
    assert message.startswith("out of memory on cpu at iteration 3 (process 0) with a batch of 2 x 3 x 4 x 4")
    assert "up to 128 positive regions an image (image ids 1004, 1005)" in message
    assert " GiB in use; lower SOLVER.IMS_PER_BATCH" in message
    assert "SOLVER.ACCUMULATE_GRAD" in message
    assert message.endswith(f"the last checkpoint is {tmp_path / 'model_0000002.pth'}")


def test_other_errors_are_left_alone():
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError(1)):
        assert not ran_out_of_memory(error)
        assert explain(error) is None


def test_memory_that_runs_out_elsewhere_is_explained():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert "out of memory (" in explain(error.value)
    assert "TEST.IMS_PER_BATCH" in explain(error.value)


def test_the_limit_of_a_process_counts():
    code = (
        "import torch\nfrom maskrcnn_benchmark.utils.memory import memory_use\nprint(*memory_use(torch.device('cpu')))"
    )
    limit = 12 * 2**30

    def lower():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=lower)
    used, total = map(int, done.stdout.split())
    assert total == min(limit, memory_use(CPU)[1])
    assert 0 < used < total


def make_faulty(iteration=7, **changes):
    targets = Targets(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.int64), None, [(4, 4)])
    batch = (ImageList(torch.rand(1, 3, 4, 4), [(4, 4)]), targets, (5,))
    values = {
        "failure": Failure(iteration, 0, "loss_one is nan", (5,), ("1005",)),
        "noticed_at": 7,
        "weights_are_exact": True,
        "seed": 3,
        "lr": 0.1,
        "scaler": {"scale": 8.0},
        "history": [(6, {"loss": 0.5}), (7, {"loss": float("nan")})],
        "config_text": "SEED: 3\n",
        "batch": batch,
    }
    return Faulty(**(values | changes))


def test_what_a_bundle_holds(tmp_path):
    loader, model, faulty = TinyLoader(9), nn.Linear(3, 2), make_faulty()
    path = save_bundle(str(tmp_path / "debug"), faulty, model, loader)
    assert path == str(tmp_path / "debug" / "iteration_0000007")
    report = json.loads((tmp_path / "debug" / "iteration_0000007" / "report.json").read_text())
    assert (report["what"], report["image_ids"], report["seed"]) == ("loss_one is nan", ["1005"], 3)
    assert report["scaler"] == {"scale": 8.0}
    assert report["losses"][-1] == {"iteration": 7, "loss": "nan"}
    batch = torch.load(f"{path}/batch.pth", weights_only=True)
    assert torch.equal(batch["images"], faulty.batch[0].tensors)
    assert torch.equal(batch["labels"], faulty.batch[1].labels)
    assert torch.equal(torch.load(f"{path}/model.pth", weights_only=True)["weight"], model.weight)


def test_a_bundle_is_never_overwritten(tmp_path):
    paths = [save_bundle(str(tmp_path), make_faulty(), nn.Linear(3, 2), TinyLoader(9)) for _ in range(2)]
    assert [path.rpartition("/")[2] for path in paths] == ["iteration_0000007", "iteration_0000007_2"]


def test_a_bundle_has_a_largest_size(tmp_path):
    batch_bytes = 3 * 16 * 4 + 32 + 16
    for most, present in (
        (batch_bytes, ["batch.pth"]),
        (batch_bytes - 1, []),
        (batch_bytes + 32, ["batch.pth", "model.pth"]),
    ):
        path = save_bundle(str(tmp_path), make_faulty(), nn.Linear(3, 2), TinyLoader(9), most_bytes=most)
        report = json.loads(Path(path, "report.json").read_text())
        assert sorted({"batch.pth", "model.pth"} - set(report["left_out"])) == present


def test_a_bundle_that_cannot_be_written_is_no_error(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    (tmp_path / "debug").write_text("a file")
    assert save_bundle(str(tmp_path / "debug"), make_faulty(), nn.Linear(3, 2), TinyLoader(9)) == ""
    assert "no debug bundle could be written" in caplog.text


def test_few_bundles_a_run(tmp_path):
    model, optimizer, scheduler, _ = make_run(tmp_path)
    loader = TinyLoader(12, size=24)
    loader.dataset.values[::4] = float("inf")  # every other iteration
    failures = FailureOptions(nonfinite="skip", debug_dir=str(tmp_path / "debug"))
    do_train(model, loader, optimizer, scheduler, None, CPU, 0, {"iteration": 0}, failures=failures)
    names = sorted(path.name for path in (tmp_path / "debug").iterdir())
    assert names == ["iteration_0000001", "iteration_0000003", "iteration_0000005"]
