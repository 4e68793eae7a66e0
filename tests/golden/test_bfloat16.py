"""The network in bfloat16, on processors with instructions for it, against figures of the original in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.engine.precision import Precision, cpu_is_fast_in
from maskrcnn_benchmark.structures.image_list import to_image_list
from tests.golden import formulas, test_golden

CPU = torch.device("cpu")


@pytest.mark.skipif(not cpu_is_fast_in(torch.bfloat16), reason="this processor has no instructions for bfloat16")
def test_losses_are_those_of_float32_to_a_few_thousandths():
    with np.load(formulas.FOLDER / "mask_rcnn_R_50_FPN.npz") as golden:
        cfg = formulas.make_cfg(golden, [*formulas.FIXED_SAMPLING, "DTYPE", "bfloat16"])
        images = formulas.make_images(golden, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)
        targets = formulas.make_targets(golden)
        expected = {name[5:]: float(golden[name]) for name in golden.files if name.startswith("loss/")}
    precision = Precision.from_config(cfg, CPU)
    model = precision.place_model(test_golden.build(cfg), CPU).train()
    types = set()
    model.rpn.head.register_forward_hook(lambda _, inputs, __: types.update(x.dtype for x in inputs[0]))
    with precision.autocast():
        losses = model(precision.place_images(to_image_list(images, cfg.DATALOADER.SIZE_DIVISIBILITY), CPU), targets)
    sum(losses.values()).backward()
    assert types == {torch.bfloat16}  # or nothing was tested
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=0.01)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
