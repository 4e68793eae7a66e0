"""The network against figures of the original once more, its 3x3 convolutions with fewer multiplications.

The tolerances are those of test_golden. Measured with AVX-512 on R-50-FPN: losses within 3e-7 and gradient norms within
9e-5 of the original, as close as the ordinary convolutions come; between the two ways features differ by 1e-5 of the
largest, scores by 2e-5, boxes by 2e-4 pixel, mask probabilities by 3e-5.
"""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.layers.conv import allow_winograd
from maskrcnn_benchmark.ops import winograd
from maskrcnn_benchmark.structures.image_list import to_image_list
from tests.golden import formulas, test_golden


@pytest.fixture(
    params=[
        "mask_rcnn_R_50_FPN",
        pytest.param("mask_rcnn_R_50_C4", marks=pytest.mark.slow),
        pytest.param("retinanet_R_50_FPN", marks=pytest.mark.slow),
    ]
)
def golden(request):
    with np.load(formulas.FOLDER / f"{request.param}.npz") as file:
        yield file


def test_training_and_inference_equal_golden(golden, monkeypatch):
    if not winograd._has_kernel():
        pytest.skip("needs the compiled kernel and a processor with AVX2")
    monkeypatch.setattr(winograd, "LEAST_PIXELS", 0)  # the images are small
    calls, build = [], test_golden.build

    def build_with_winograd(cfg, device="cpu"):
        model = build(cfg, device)
        allow_winograd(model, True)
        return model

    def winograd_conv(*arguments, **options):
        calls.append(arguments[0].shape)
        return winograd.winograd_conv(*arguments, **options)

    monkeypatch.setattr(test_golden, "build", build_with_winograd)
    monkeypatch.setattr("maskrcnn_benchmark.layers.conv.winograd_conv", winograd_conv)
    cfg = formulas.make_cfg(golden)
    images = formulas.make_images(golden, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)
    images = to_image_list(images, cfg.DATALOADER.SIZE_DIVISIBILITY)
    test_golden.check_training(golden, images, "cpu")
    test_golden.check_inference(golden, images, "cpu")
    assert len(calls) > 20  # or the comparison says nothing
