"""benchmarks/cpu_network.py on a tiny network, and that the peers do the work that ours does."""

from __future__ import annotations

import json

import pytest

from benchmarks import cpu_network
from benchmarks._network_worker import BUILDERS, OURS, Job
from benchmarks._peers import find_peers
from maskrcnn_benchmark.engine.stages import HostClock, StageRecorder
from tests.apps.tiny_run import CONFIG, OPTIONS

TINY = [str(word) for pair in OPTIONS.items() for word in pair]
FULL = "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"


class Steady:
    """In the place of a contender: a step takes as long as it is told."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.asked = []

    def ask(self, command, threads):
        self.asked.append((command, threads))
        return self.seconds, 10 * self.seconds


def test_a_tiny_network_gives_rows_of_both_tasks(tmp_path, capsys):
    out = tmp_path / "rows.json"
    size = ("--image-size", "64", "96", "--positives", "6", "--rounds", "2")
    rows = cpu_network.main(
        ["--peers", "none", "--config-file", str(CONFIG), *size, "--out", str(out), "--opts", *TINY]
    )
    assert json.loads(out.read_text())["rows"] == rows
    assert [(row["area"], row["clock"], row["threads"]) for row in rows] == [
        (area, *kind) for area in ("step", "inference") for kind in (("cpu", 1), ("wall", 2), ("none", 2))
    ]
    step, _, memory, inference, *_ = rows
    assert len(step["results"][OURS]["samples"]) == 2
    assert step["regions"][OURS] >= 6
    assert {"backbone", "mask_head", "backward", "optimizer"} <= set(step["stages_ms"][OURS])
    assert step["gflop"]["step"] > step["gflop"]["backward"] > step["gflop"]["backbone"] > 0
    assert "paste" in inference["stages_ms"][OURS]
    assert memory["results"][OURS]["median"] > 100
    assert "ours is better by" in capsys.readouterr().out


def test_contenders_take_turns_in_changing_order():
    contenders = {"ours": Steady(1.0), "other": Steady(2.0)}
    seconds = cpu_network.take_turns(contenders, 3, cpu_network.Deadline(None), ["cpu", "wall"])
    assert seconds == {
        "cpu": {"ours": [1.0] * 3, "other": [2.0] * 3}, "wall": {"ours": [10.0] * 3, "other": [20.0] * 3}
    }  # fmt: skip
    assert contenders["ours"].asked == [("step", 1), ("step", 2)] * 3


def test_no_round_is_begun_after_the_limit():
    seconds = cpu_network.take_turns({"ours": Steady(1.0)}, 3, cpu_network.Deadline(0.0), ["cpu"])
    assert seconds == {"cpu": {"ours": [1.0]}}


@pytest.mark.extras
@pytest.mark.parametrize("peer", [name for name in BUILDERS if name != OURS])
def test_peers_have_the_same_network_and_the_same_work(peer):
    version = find_peers(wanted=[peer])[peer]
    if version.startswith("absent"):
        pytest.skip(f"{peer} is {version}")
    train = Job("train", (96, 128), 40, FULL)
    ours, theirs = (BUILDERS[name](train) for name in (OURS, peer))
    count = lambda run: sum(p.numel() for p in run.model.parameters() if p.requires_grad)  # noqa: E731
    # detectron2 has no box codes and no mask for the background.
    assert count(theirs) == pytest.approx(count(ours), rel=2e-4)
    regions = []
    for run in (ours, theirs):
        run.watch(StageRecorder(HostClock()))
        run.step()
        run.unwatch()
        regions.append(int(run.region_counts[-1]))
    assert regions == pytest.approx([40, 40], abs=8)
    pictures = [BUILDERS[name](Job("inference", (96, 128), 0, FULL)) for name in (OURS, peer)]
    for run in pictures:
        run.step()
        assert run.region_counts[-1] == 100
