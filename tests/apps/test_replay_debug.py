"""A run that fails leaves a bundle from which the failed iteration runs again."""

from __future__ import annotations

import json

import pytest
import torch

from maskrcnn_benchmark.apps import replay_debug
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data.build import make_data_loader
from maskrcnn_benchmark.data.rebuild import rebuild_batch
from tests.apps.tiny_run import tiny_run

__all__ = ["tiny_run"]  # a fixture


def replay(bundle, *words):
    replay_debug.main(replay_debug.make_parser().parse_args([str(bundle), *words]), cfg)


@pytest.fixture
def failed(tiny_run, monkeypatch, capsys):
    """The bundle of a run whose third batch is read with a weight that was made NaN."""
    from maskrcnn_benchmark.engine.step import TrainStep

    original = TrainStep.__call__

    def faulty(step, images, targets, *, iteration):
        if iteration == 3:
            with torch.no_grad():
                step.model.roi_heads.box.feature_extractor.fc7.bias[0] = float("nan")
        return original(step, images, targets, iteration=iteration)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", faulty)
        with pytest.raises(SystemExit) as stop:
            tiny_run.train("--skip-test")
    assert stop.value.code == 2
    bundle = tiny_run.output / "debug" / "iteration_0000003"
    assert f"python tools/replay_debug.py {bundle} shows where" in capsys.readouterr().err
    return bundle


def test_the_first_layer_is_found(failed, capsys):
    replay(failed)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("then: loss_box_reg is nan and loss_classifier is nan at iteration 3, files ['image_")
    assert "input: finite" in lines
    assert "weights: roi_heads.box.feature_extractor.fc7.bias not finite" in lines
    assert "first layer whose output is not finite: roi_heads.box.feature_extractor.fc7 (Linear)" in lines
    assert "loss_classifier: nan" in lines
    assert any(line.startswith("gradients: ") and "not finite" in line for line in lines)


def test_the_replayed_losses_are_those_of_the_run(failed, capsys):
    """To the last bit: the same weights, batch and random numbers."""
    report = json.loads((failed / "report.json").read_text())
    replay(failed)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("loss_"))
    last = report["losses"][-1]
    assert last["iteration"] == 3
    assert {name: lines[name] for name in ("loss_objectness", "loss_rpn_box_reg")} == {
        name: last[name] for name in ("loss_objectness", "loss_rpn_box_reg")
    }


def test_a_folder_that_is_no_bundle(tmp_path, capsys):
    with pytest.raises(SystemExit):
        replay(tmp_path)
    assert "no debug bundle" in capsys.readouterr().err


def test_a_batch_is_made_anew(tiny_run):
    """The same as the loader gave, while the loader goes on as before."""
    from maskrcnn_benchmark.apps.start import build_config
    from maskrcnn_benchmark.apps.train import make_parser

    own = build_config(make_parser().parse_args(tiny_run.command()), cfg)
    whole = list(make_data_loader(own, keep_pixels=True)[0])
    loader = make_data_loader(own, keep_pixels=True)[0]
    seen = []
    for number, (images, targets, indices) in enumerate(loader, 1):
        seen.append(indices)
        again, targets_again, indices_again = rebuild_batch(loader, number)
        assert indices == indices_again
        assert torch.equal(images.tensors, again.tensors)
        assert torch.equal(targets.boxes, targets_again.boxes)
        assert torch.equal(targets.polygons.coords, targets_again.polygons.coords)
    assert seen == [indices for _, _, indices in whole]
    assert rebuild_batch([], 1) is None
