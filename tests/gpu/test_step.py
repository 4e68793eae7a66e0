"""A training step on a GPU: no waiting, the same numbers from CUDA graphs, and near ones in half precision."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.targets import Targets
from tests.golden import formulas
from tests.gpu.network import DEVICE, EVERYTHING, FIXED, Trainer, make_batches, plain_ops

pytestmark = pytest.mark.gpu

SCALE = 64.0  # of the golden network's loss: its gradients fit into float16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("capture", ["eager", "cuda_graphs"])
@pytest.mark.parametrize(
    "network", [{"MODEL__RPN_ONLY": True}, {"MODEL__MASK_ON": False}, FIXED], ids=["proposals", "boxes", "fixed_slots"]
)
def test_a_step_never_waits_for_the_device(network, capture, dtype):
    if plain_ops():
        pytest.skip(f"no CUDA kernel is built for {', '.join(plain_ops())}")
    trainer = Trainer(Precision("cuda", dtype, channels_last=True), capture=capture, **network)
    batches = make_batches()
    for batch in batches:  # the anchors of each shape, the scaler's tensors, cuDNN's choice
        trainer.take(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [trainer.take(batch) for batch in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.isfinite() for each in losses for loss in each.values())


@pytest.mark.parametrize("step_options", [{}, {"accumulate_steps": 2}], ids=["each", "accumulated"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("network", [{}, FIXED], ids=["compact", "fixed_slots"])
def test_cuda_graphs_equal_eager(network, channels_last, step_options):
    def run(capture):
        precision = Precision("cuda", channels_last=channels_last)
        return Trainer(precision, capture=capture, step_options=step_options, **EVERYTHING, **network).run()

    (expected, expected_weights), (losses, weights) = run("eager"), run("cuda_graphs")
    for found, wanted in zip(losses, expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected_weights[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cuda_graphs_in_half_precision(dtype):
    losses = {}
    for capture in ("eager", "cuda_graphs"):
        precision = Precision("cuda", dtype, channels_last=True)
        losses[capture], _ = Trainer(precision, capture=capture, **EVERYTHING).run(steps=1)
    assert losses["cuda_graphs"][0] == pytest.approx(losses["eager"][0], rel=0.01)


def test_weights_loaded_after_the_recording_count():
    trainers = [Trainer(Precision("cuda"), capture=capture, **EVERYTHING) for capture in ("eager", "cuda_graphs")]
    generator = torch.Generator().manual_seed(7)
    state = {
        name: tensor.cpu() * (1 + 0.1 * torch.rand(tensor.shape, generator=generator)) if "fpn" in name else tensor
        for name, tensor in trainers[0].model.state_dict().items()
    }
    before = trainers[1].take(make_batches()[0])
    for trainer in trainers:
        trainer.model.load_state_dict(state)
    (expected, _), (losses, _) = (trainer.run(steps=1) for trainer in trainers)
    assert losses[0] == pytest.approx(expected[0], rel=1e-3)
    assert losses[0] != pytest.approx({name: loss.item() for name, loss in before.items()}, rel=1e-3)


def test_running_statistics_forget_the_warm_up():
    batch_norm = {
        "MODEL__RESNETS__STEM_FUNC": "StemWithBatchNorm",
        "MODEL__RESNETS__TRANS_FUNC": "BasicBlockWithBatchNorm",
    }
    states = [
        Trainer(Precision("cuda"), capture=capture, **batch_norm).model.state_dict()
        for capture in ("eager", "cuda_graphs")
    ]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def golden_losses(precision, device=DEVICE):
    """The losses of the golden network, whose activations are those of a healthy one, over all samples."""
    with np.load(formulas.FOLDER / "mask_rcnn_R_50_FPN.npz") as golden:
        cfg = formulas.make_cfg(golden, formulas.FIXED_SAMPLING)
        model = build_detection_model(cfg)
        formulas.load_weights(model)
        precision.place_model(model, device).train()
        images = to_image_list(formulas.make_images(golden, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES), 32)
        targets = Targets.from_boxlists(formulas.make_targets(golden)).to(device)
    with precision.autocast():
        losses = model(precision.place_images(images, device), targets)
    (sum(losses.values()) * SCALE).backward()
    norms = [p.grad.double().norm().item() / SCALE for p in model.parameters() if p.grad is not None]
    return {name: loss.item() for name, loss in losses.items()}, sum(norm**2 for norm in norms) ** 0.5


@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_is_within_two_percent(channels_last):
    expected, norm = golden_losses(Precision("cuda", channels_last=channels_last))
    for dtype in (torch.float16, torch.bfloat16):
        losses, half_norm = golden_losses(Precision("cuda", dtype, channels_last))
        assert losses == pytest.approx(expected, rel=0.02), dtype
        assert half_norm == pytest.approx(norm, rel=0.1), dtype


@pytest.mark.parametrize("capture", ["eager", "cuda_graphs"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_deterministic_mode_gives_the_same_bits_twice(dtype, capture, repository):
    command = [sys.executable, "-m", "tests.gpu.deterministic_run", dtype, capture]
    runs = [subprocess.run(command, cwd=repository, capture_output=True, text=True) for _ in range(2)]
    for run in runs:
        assert run.returncode == 0, run.stderr[-4000:]
    assert len(runs[0].stdout) > 64
    assert runs[0].stdout == runs[1].stdout
