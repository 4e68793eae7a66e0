"""The network against figures of the original: losses, gradients, features, proposals, detections, masks.

Tolerances: losses and features 1e-4 and gradient norms 1e-3 (relative), boxes 0.02 pixel, scores 1e-4, masks 2e-3.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.engine.precision import choose_dtype
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list
from tests.golden import formulas

FILES = [
    "mask_rcnn_R_50_FPN",
    "rpn_R_50_FPN",
    "mask_rcnn_R_50_FPN_gn",
    "mask_rcnn_R_50_C4",
    pytest.param("faster_rcnn_R_50_C4", marks=pytest.mark.slow),
    "retinanet_R_50_FPN",
    "mask_rcnn_fbnet",
]

# One ReLU in a million that a last bit turns moves FBNet's gradient norms by 1e-3; the number of threads does that.
GRADIENT_TOLERANCES = {"e2e_mask_rcnn_fbnet.yaml": 2e-3}


@pytest.fixture(params=FILES, scope="module")
def golden(request):
    with np.load(formulas.FOLDER / f"{request.param}.npz") as file:
        yield file


@pytest.fixture(scope="module")
def images(golden):
    cfg = formulas.make_cfg(golden)
    return to_image_list(
        formulas.make_images(golden, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES), cfg.DATALOADER.SIZE_DIVISIBILITY
    )


def build(cfg, device="cpu"):
    model = build_detection_model(cfg)
    formulas.load_weights(model)
    return model.to(device)


def check_training(golden, images, device):
    model = build(formulas.make_cfg(golden, formulas.FIXED_SAMPLING), device).train()
    targets = [target.to(device) for target in formulas.make_targets(golden)]
    losses = model(images.to(device), targets)
    sum(losses.values()).backward()
    expected = {name[5:]: float(golden[name]) for name in golden.files if name.startswith("loss/")}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    norms = {name: p.grad.double().norm().item() for name, p in model.named_parameters() if p.grad is not None}
    expected = dict(zip(golden["grad_names"].tolist(), golden["grad_norms"].tolist(), strict=True))
    assert norms == pytest.approx(expected, rel=GRADIENT_TOLERANCES.get(str(golden["config"]), 1e-3), abs=1e-6)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in golden["frozen_names"].tolist() if name in dict(model.named_parameters())}


def check_inference(golden, images, device):
    cfg = formulas.make_cfg(golden)
    model = build(cfg, device).eval()
    images = images.to(device)
    with torch.no_grad():
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
        results = model(images)
    check_features(golden, features)
    for i, boxlist in enumerate(proposals.to_boxlists(images.image_sizes)):
        if f"prop{i}_count" not in golden.files:  # where too many scores are equal
            continue
        assert len(boxlist) == int(golden[f"prop{i}_count"])
        field = (
            "objectness" if boxlist.has_field("objectness") else "scores"
        )  # of RetinaNet, whose proposals are results
        scores = boxlist.get_field(field)[:100].cpu().numpy()
        np.testing.assert_allclose(scores, golden[f"prop{i}_scores"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(boxlist.bbox[:100].cpu().numpy(), golden[f"prop{i}_boxes"], atol=0.02, rtol=0)
    for i, result in enumerate(results):
        if f"det{i}_scores" in golden.files:
            check_detections(golden, i, result)


def check_features(golden, features):
    for i, feature in enumerate(features):
        assert list(feature.shape) == golden[f"feat{i}_shape"].tolist()
        assert feature.double().mean().item() == pytest.approx(float(golden[f"feat{i}_mean"]), rel=1e-4, abs=1e-7)
        assert feature.double().std().item() == pytest.approx(float(golden[f"feat{i}_std"]), rel=1e-4)
        c, h, w = feature.shape[1:]
        sample = feature[:, :: max(1, c // 8), :: max(1, h // 5), :: max(1, w // 5)].cpu().numpy()
        scale = float(golden[f"feat{i}_std"])
        np.testing.assert_allclose(sample, golden[f"feat{i}_sample"], rtol=1e-4, atol=1e-4 * scale)


def check_detections(golden, i, result):
    assert len(result) == len(golden[f"det{i}_scores"])
    scores = result.get_field("scores").cpu().numpy()
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, golden[f"det{i}_scores"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(result.bbox.cpu().numpy(), golden[f"det{i}_boxes"], atol=0.02, rtol=0)
    np.testing.assert_array_equal(result.get_field("labels").cpu().numpy(), golden[f"det{i}_labels"])
    if f"det{i}_masks" in golden.files:
        masks = result.get_field("mask")[:20, 0].cpu().numpy()
        np.testing.assert_allclose(masks, golden[f"det{i}_masks"].astype(np.float32), atol=2e-3, rtol=0)


def test_training_equals_golden(golden, images):
    check_training(golden, images, "cpu")


def test_inference_equals_golden(golden, images):
    check_inference(golden, images, "cpu")


@pytest.fixture
def exact_float32():
    """CUDA without TF32, which PyTorch's convolutions use unless told otherwise."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    choose_dtype("float32", torch.device("cuda"))
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.fp32_precision = value


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_float32")
def test_training_equals_golden_on_cuda(golden, images):
    check_training(golden, images, "cuda")


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_float32")
def test_inference_equals_golden_on_cuda(golden, images):
    check_inference(golden, images, "cuda")
