"""What tools/compare_runs.py says of two folders that differ in one place."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from maskrcnn_benchmark.apps.compare_causes import IMAGES, LOSSES, facts_at, find_causes, why_without_cause
from maskrcnn_benchmark.apps.compare_checkpoints import largest_difference, same_bits
from maskrcnn_benchmark.apps.compare_runs import main, make_parser
from maskrcnn_benchmark.utils.nested import flatten
from tests.apps.repeat_runs import runs

__all__ = ["runs"]  # a fixture


@pytest.fixture
def other(runs, request):
    """The folder of a copy of "whole", under the name of the test."""
    return runs.copy(request.node.name, of="whole")


def edit_trace(folder, change):
    path = folder / "trace.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in change(lines)))


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of_iteration(lines, iteration):
    return next(line for line in lines if line["iteration"] == iteration and "losses" in line)


def test_the_first_loss_that_differs_is_named_with_both_values(runs, other):
    def change(lines):
        losses = of_iteration(lines, 3)["losses"]
        losses["loss_mask"] += 2.0**-20
        of_iteration(lines, 4)["images"] = [1]
        return lines

    edit_trace(other, change)
    status, report = runs.compare("whole", other.name)
    assert status == 1
    assert "The runs part at iteration 3: loss_mask is " in report
    assert ", 9.54e-07 apart (" in report
    assert "no recorded fact explains it" in report
    assert "tensors of" not in report  # the checkpoints are equal


def test_other_images_come_before_other_losses(runs, other):
    def change(lines):
        line = of_iteration(lines, 2)
        line["images"], line["losses"] = [300, 8], {"loss_mask": 1.0}
        return lines

    edit_trace(other, change)
    edit_manifest(other, lambda content: content["facts"]["config"]["values"].update({"SOLVER.BASE_LR": 7.0}))
    status, report = runs.compare("whole", other.name)
    assert status == 1
    assert "The runs part at iteration 2: A takes the images " in report
    assert ", B 300, 8" in report
    assert "Different too, but no explanation: SOLVER.BASE_LR, OUTPUT_DIR" not in report
    assert "SOLVER.BASE_LR." in report


def test_another_learning_rate(runs, other):
    def change(lines):
        line = of_iteration(lines, 4)
        line["learning_rate"] *= 2
        return lines

    edit_trace(other, change)
    edit_manifest(other, lambda content: content["facts"]["config"]["values"].update({"SOLVER.STEPS": [2]}))
    status, report = runs.compare("whole", other.name)
    assert status == 1
    assert re.search(r"iteration 4: the learning rate is 0\.0\d+ in A and 0\.0\d+ in B", report)
    assert "  config.values.SOLVER.STEPS: [3] | [2]  (it changes the updates)" in report


def test_weights_that_differ_after_equal_losses(runs, other):
    edit_trace(
        other,
        lambda lines: [
            {**line, "weights": "0"} if line.get("weights") and line["iteration"] == 2 else line for line in lines
        ],
    )
    assert "part at iteration 2: the weights differ after it" in runs.compare("whole", other.name)[1]


def test_a_run_that_ended_sooner(runs, other):
    edit_trace(other, lambda lines: [line for line in lines if line["iteration"] < 3])
    edit_manifest(other, lambda content: content.update(end=None))
    status, report = runs.compare(other.name, "whole")
    assert status == 1
    assert "A ends at iteration 2, the other at 4; up to there they are equal" in report
    assert "2 iterations; running or killed" in report
    assert "Why" not in report


def test_a_tensor_of_a_checkpoint_that_differs_in_one_bit(runs, other):
    path = other / "model_final.pth"
    data = torch.load(path, weights_only=True)
    name = [name for name, tensor in data["model"].items() if tensor.is_floating_point()][3]
    data["model"][name].view(torch.int32).view(-1)[0] ^= 1
    torch.save(data, path)
    status, report = runs.compare("whole", other.name)
    assert status == 1
    assert "only the checkpoints differ" in report
    assert re.search(rf"\n1 of \d+ tensors of model_final.pth differ; the first is {name}; the largest diff", report)


def test_an_evaluation_that_differs(runs, other):
    for name in ("evaluation.json", "bbox.json"):  # the cause comes before what follows from it
        path = other / "inference" / "tiny" / name
        path.write_text(path.read_text() + "\n")
        status, report = runs.compare("whole", other.name)
        assert status == 1
        assert f"training is equal, but inference/tiny/{name} differs" in report


def test_an_evaluation_on_the_way_that_differs(runs, other):
    line = {"iteration": 2, "figures": {"bbox": {"AP": 0.25}}}
    (other / "evaluations.jsonl").write_text(f"{json.dumps(line)}\n")
    twin = runs.copy(f"{other.name}_twin", of=other.name)
    assert runs.compare(other.name, twin.name)[0] == 0
    line["figures"]["bbox"]["AP"] += 2.0**-50
    (twin / "evaluations.jsonl").write_text(f"{json.dumps(line)}\n")
    status, report = runs.compare(other.name, twin.name)
    assert status == 1
    assert "The runs part at iteration 2: the evaluation after it differs" in report
    assert runs.compare("whole", twin.name)[0] == 0  # which has none to compare


def test_folders_without_a_manifest(runs, other):
    (other / "manifest.json").unlink()
    assert runs.compare("whole", other.name)[0] == 0
    edit_trace(other, lambda lines: [{**line, "learning_rate": 9} if "losses" in line else line for line in lines])
    assert "Why cannot be said: manifest.json is missing." in runs.compare("whole", other.name)[1]


def test_what_cannot_be_compared(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="neither traced iterations nor a checkpoint"):
        runs.compare("whole", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="give the OUTPUT_DIR of two runs"):
        runs.compare("whole", tmp_path / "nowhere")
    (tmp_path / "empty" / "manifest.json").write_text('{"format": 1')
    with pytest.raises(ValueError, match="is damaged"):
        runs.compare("whole", tmp_path / "empty")
    (tmp_path / "empty" / "manifest.json").write_text('{"format": 99, "facts": {}, "starts": []}')
    with pytest.raises(ValueError, match="has layout 99, this program reads 1"):
        runs.compare("whole", tmp_path / "empty")


def test_the_tool_and_its_exit_statuses(runs, other, repository, capsys):
    whole = str(runs.path("whole"))
    assert main(make_parser().parse_args([whole, str(other)])) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    edit_trace(other, lambda lines: lines[:2])
    assert main(make_parser().parse_args([whole, str(other)])) == 1
    command = [sys.executable, "tools/compare_runs.py", whole, f"{other}_missing"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: there is no folder {other}_missing; give the OUTPUT_DIR of two runs\n"


def test_facts_of_the_start_that_an_iteration_belongs_to():
    manifest = {
        "facts": {"execution": {"threads": 1, "device": "cpu"}},
        "starts": [{"iteration": 0, "changes": {}}, {"iteration": 40, "changes": {"execution.threads": [1, 2]}}],
    }
    assert [facts_at(manifest, iteration)["execution.threads"] for iteration in (None, 1, 40, 41)] == [2, 1, 1, 2]


def test_causes_are_ranked_and_fit_the_place():
    a = {"execution.threads": 1, "versions.torch": "2.13", "config.values.SEED": 0, "versions.yacs": "1"}
    b = {"execution.threads": 2, "versions.torch": "2.14", "config.values.SEED": 5, "versions.yacs": "2", "new": 1}
    causes, others = find_causes(LOSSES, (a, b))
    assert [cause.fact for cause in causes] == ["config.values.SEED", "execution.threads", "versions.torch", "new"]
    assert [cause.fact for cause in others] == ["versions.yacs"]
    assert causes[-1].values == (None, 1)
    assert [cause.fact for cause in find_causes(IMAGES, (a, b))[0]] == ["config.values.SEED", "new"]


def test_every_fact_of_a_manifest_has_a_rule(runs):
    facts = flatten(runs.manifest("whole")["facts"])
    others = {fact: f"not {value}" for fact, value in facts.items()}
    found = [cause for group in find_causes(LOSSES, (facts, others)) for cause in group]
    assert len(found) == len(facts) > 200
    assert [cause.fact for cause in found if cause.why == "unknown"] == []


def test_a_gpu_without_deterministic_kernels_explains_itself():
    facts = {"execution.device": "cuda", "execution.deterministic_kernels": False}
    assert "DETERMINISTIC True" in why_without_cause(facts)
    assert "no recorded fact" in why_without_cause({**facts, "execution.deterministic_kernels": True})


def test_bits_are_compared_not_values():
    zero, nan = torch.tensor([0.0]), torch.tensor([float("nan")])
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.double())
    assert not same_bits(zero, torch.zeros(1, 1))
    assert same_bits(torch.rand(2, 3)[:, :0], torch.zeros(2, 0))
    assert largest_difference(torch.tensor([1.0, float("inf")]), torch.tensor([1.5, float("inf")])) == 0.5
    assert largest_difference(zero, nan) == float("inf")
