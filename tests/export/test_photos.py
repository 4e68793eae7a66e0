"""Published networks, exported and run in onnxruntime, beside PyTorch's own way on twenty real photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.apps import export as app
from maskrcnn_benchmark.apps.export_images import CanvasPreparer, compare
from maskrcnn_benchmark.apps.predict_files import find_images, read_upright
from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.data.transforms.build import ImagePreparer
from maskrcnn_benchmark.export.program import FixedShapeDetector, InputShape, export_program
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list

pytestmark = [pytest.mark.slow, pytest.mark.extras]

NUM_PHOTOS = 20
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", "INPUT.MIN_SIZE_TEST", "320", "INPUT.MAX_SIZE_TEST", "544"]


# Layers by the end of their name, with the deviation that their outputs get: sure and unsure scores, boxes that move.
SPREADS = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "box.predictor.cls_score": 2.0,
    "box.predictor.bbox_pred": 1.0,
    "mask.predictor.mask_fcn_logits": 2.0,
}


def make_detector(config_file, options, picture):
    """A network of random weights whose detections are many and differ: its last layers are scaled on a picture."""
    cfg = default_cfg.clone()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(options)
    torch.manual_seed(0)
    detector = FixedShapeDetector(build_detection_model(cfg), mean=torch.tensor(cfg.INPUT.PIXEL_MEAN))
    scaled = set()

    def scale(module, _, output):
        if module in scaled:  # the head of the proposals runs once a level
            return output
        scaled.add(module)
        factor = module.spread / output.std()
        module.weight.mul_(factor)
        return output * factor

    hooks = []
    for name, module in detector.named_modules():
        for ending, spread in SPREADS.items():
            if name.endswith(ending):
                module.spread = spread
                hooks.append(module.register_forward_hook(scale))
    with torch.no_grad():
        detector(*CanvasPreparer.from_config(cfg, InputShape(1, 320, 544))([picture]))
    for hook in hooks:
        hook.remove()
    assert len(scaled) == len(hooks) >= 4
    return cfg, detector


def published_way(cfg, detector, picture, shape):
    """The test loader's preparation, the same canvas, and detections that go through BoxLists."""
    tensor, _ = ImagePreparer.from_config(cfg)(picture)
    images = to_image_list([tensor], shapes=[(shape.height, shape.width)])
    assert tuple(images.tensors.shape[2:]) == (shape.height, shape.width)
    boxlist = detector.model(images)[0]
    outputs = {"boxes": boxlist.bbox, "scores": boxlist.get_field("scores"), "labels": boxlist.get_field("labels")}
    if boxlist.has_field("mask"):
        outputs["masks"] = boxlist.get_field("mask")[:, 0]
    outputs["valid"] = torch.ones(len(boxlist), dtype=torch.bool)
    return {name: tensor[None].numpy() for name, tensor in outputs.items()}


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["e2e_mask_rcnn_R_50_FPN_1x", "e2e_faster_rcnn_R_50_FPN_1x"])
def test_the_same_objects_in_twenty_photographs(repository, external_data, tmp_path, name):
    onnx_file = pytest.importorskip("maskrcnn_benchmark.export.onnx_file", exc_type=ImportError)
    onnx_run = pytest.importorskip("maskrcnn_benchmark.export.onnx_run", exc_type=ImportError)
    paths = find_images([str(external_data("coco_tiny") / "val2017")])[:NUM_PHOTOS]
    assert len(paths) == NUM_PHOTOS
    cfg, detector = make_detector(repository / f"configs/{name}.yaml", SMALL, read_upright(paths[0]))
    runners = {}
    for shape in app.make_shapes(cfg, None, batch=1, takes_pixels=True):
        with torch.no_grad():
            names = list(detector(*shape.example()))
        path = tmp_path / f"{shape.height}.onnx"
        onnx_file.save_onnx(onnx_file.make_onnx(export_program(detector, shape), names), path, {})
        runners[shape.height < shape.width] = shape, onnx_run.OnnxRunner(path)

    pairs, scores = [], []
    for path in paths:
        picture = read_upright(path)
        shape, runner = runners[picture.shape[0] <= picture.shape[1]]
        inputs = CanvasPreparer.from_config(cfg, shape)([picture])
        with torch.no_grad():
            expected = published_way(cfg, detector, picture, shape)
        outputs = {key: value.numpy() for key, value in runner(*inputs).items()}
        pairs.append((expected, outputs))
        scores.append(expected["scores"][0])
    assert all(len(each) >= 10 for each in scores), [len(each) for each in scores]
    assert np.unique(np.concatenate(scores)).size > 0.9 * sum(map(len, scores))
    found = compare(pairs)
    print(f"{name}: {found}")
    assert found.unmatched == 0
    assert found.box < 0.1
    assert found.score < 1e-3
    assert found.mask < 1e-2
