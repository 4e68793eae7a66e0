"""RetinaNet as a whole network: gradients, batches, no waiting, captured, in half precision, and through the tools."""

from __future__ import annotations

import json

import cv2
import pytest
import torch

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.checkpoint.weights import fill_from_weights
from maskrcnn_benchmark.config import class_count, class_count_key, only_proposes, validate
from maskrcnn_benchmark.engine.capture import capture_trunk
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.structures.targets import Targets
from tests.apps.tiny_run import tiny_run
from tests.modeling.test_detector import build, make_batch, make_cfg, make_target
from tests.modeling.test_no_host_reads import losses_of_fakes, make_step, packed_batch, reads_of_a_step

__all__ = ["tiny_run"]  # a fixture

RETINANET = {
    "MODEL__RETINANET_ON": True,
    "MODEL__RPN_ONLY": True,
    "MODEL__MASK_ON": False,
    "MODEL__BACKBONE__CONV_BODY": "R-18-FPN-RETINANET",
    "MODEL__RETINANET__NUM_CLASSES": 4,
    "MODEL__RETINANET__NUM_CONVS": 2,
    "DATALOADER__SIZE_DIVISIBILITY": 32,
    "TEST__DETECTIONS_PER_IMG": 20,
}
LOSSES = {"loss_retina_cls", "loss_retina_reg"}


@pytest.fixture(autouse=True)
def one_thread():
    """The network is so small that a second thread costs more than it gives where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("use_c5", [True, False])
def test_every_trainable_parameter_gets_a_gradient(use_c5):
    model = build(**RETINANET, MODEL__RETINANET__USE_C5=use_c5)
    losses = model(*make_batch())
    assert set(losses) == LOSSES
    assert all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == parameter.requires_grad, name
    top_channels = model.backbone.fpn.top_blocks.p6.in_channels
    assert top_channels == (128 if use_c5 else 32)


@pytest.mark.parametrize("empty", [(0,), (0, 1)])
def test_images_without_objects_train(empty):
    model = build(**RETINANET)
    images, targets = make_batch()
    for i in empty:
        targets[i] = make_target([], [], targets[i].size)
    losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert (losses["loss_retina_reg"] == 0) == (len(empty) == 2)


def test_detections_have_the_published_fields():
    model = build(**RETINANET, MODEL__RETINANET__INFERENCE_TH=0.0).eval()
    with torch.no_grad():
        results = model(make_batch()[0])
    assert [result.size for result in results] == [(128, 96), (120, 90)]
    for result in results:
        assert len(result) == 20
        assert sorted(result.fields()) == ["labels", "scores"]
        assert (result.get_field("scores").diff() <= 0).all()
        assert set(result.get_field("labels").tolist()) <= {1, 2, 3}
        assert (result.bbox[:, 2] < result.size[0]).all()
    with torch.no_grad():
        assert [
            len(result) for result in build(**RETINANET, MODEL__RETINANET__INFERENCE_TH=1.0).eval()(make_batch()[0])
        ] == [0, 0]


def test_an_image_is_detected_alike_alone_and_in_a_batch():
    model = build(**RETINANET, MODEL__RETINANET__INFERENCE_TH=0.0).eval()
    images = [50 * torch.randn(3, 96, 128, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)]
    with torch.no_grad():
        together = model(images)
        alone = [model([image])[0] for image in images]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.bbox, other.bbox, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(one.get_field("scores"), other.get_field("scores"), rtol=1e-4, atol=1e-6)


def test_the_whole_step_never_waits():
    assert reads_of_a_step(build(**RETINANET), packed_batch(), max_grad_norm=1.0) == []
    assert set(losses_of_fakes(build(**RETINANET)).values()) == {()}


def test_the_trunk_is_captured():
    images, targets = make_batch()
    weights = []
    for mode in ("eager", "compile"):
        model = build(**RETINANET)
        settings = {
            "shapes": [(96, 128)],
            "num_images": 2,
            "precision": Precision("cpu"),
            "device": torch.device("cpu"),
        }
        capture_trunk(model, mode, **settings, compile_backend="aot_eager")
        assert len(model._captured) == (mode == "compile")
        step = make_step(model)
        for iteration in (1, 2):
            step(images, Targets.from_boxlists(targets), iteration=iteration)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same(dtype):
    results = []
    for enabled in (False, True):
        model = build(**RETINANET)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            losses = model(*make_batch())
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        results.append([loss.item() for loss in losses.values()])
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert results[1] == pytest.approx(results[0], rel=0.03)


def test_weights_of_other_classes_fill_the_rest():
    trained, model = build(**RETINANET | {"MODEL__RETINANET__NUM_CLASSES": 9}), build(**RETINANET)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.fill_(0.5)
    report = fill_from_weights(model, trained.state_dict())
    assert report.left_out == ["rpn.head.cls_logits.weight", "rpn.head.cls_logits.bias"]
    assert not report.mismatched
    assert not report.missing
    assert (model.rpn.head.bbox_pred.weight == 0.5).all()
    torch.testing.assert_close(model.rpn.head.cls_logits.bias.sigmoid(), torch.full((27,), 0.01))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.MASK_ON", True, "MODEL.MASK_ON must be False with MODEL.RETINANET_ON, which detects boxes only"),
        (
            "MODEL.BACKBONE.CONV_BODY",
            "R-50-FPN",
            "CONV_BODY must be one with the levels of RetinaNet, such as R-50-FPN-R",
        ),
        ("MODEL.RETINANET.NUM_CLASSES", 1, r"MODEL.RETINANET.NUM_CLASSES must be at least 2"),
        (
            "MODEL.RETINANET.ANCHOR_SIZES",
            (32, 64),
            r"ANCHOR_SIZES must be one for each of the 5 ANCHOR_STRIDES \(8, 16",
        ),
        ("MODEL.RETINANET.BG_IOU_THRESHOLD", 0.6, r"FG_IOU_THRESHOLD must be between BG_IOU_THRESHOLD \(0.6\) and 1"),
        ("MODEL.RETINANET.PRIOR_PROB", 1.0, "PRIOR_PROB must be between 0 and 1"),
        ("DATALOADER.SIZE_DIVISIBILITY", 16, "SIZE_DIVISIBILITY must be a multiple of 32"),
    ],
)
def test_faults_of_the_config_name_key_and_remedy(key, value, message):
    cfg = make_cfg(**RETINANET)
    validate(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        validate(cfg)


def test_where_the_class_count_stands():
    cfg = make_cfg(**RETINANET, MODEL__ROI_BOX_HEAD__NUM_CLASSES=81)
    assert (class_count_key(cfg), class_count(cfg)) == ("MODEL.RETINANET.NUM_CLASSES", 4)
    assert not only_proposes(cfg)
    cfg.MODEL.RETINANET_ON = False
    assert (class_count_key(cfg), class_count(cfg)) == ("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81)
    assert only_proposes(cfg)


def test_train_test_and_predict(tiny_run, capsys):
    keys = {key.replace("__", "."): value for key, value in RETINANET.items() if "MASK" not in key}
    keys |= {"MODEL.MASK_ON": False, "MODEL.RETINANET.INFERENCE_TH": 0.0, "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 81}
    tiny_run.train(keys=keys)
    out = capsys.readouterr().out
    assert "loss_retina_cls: " in out
    assert "loss_retina_reg: " in out
    assert "Average Precision" in out
    folder = tiny_run.output / "inference" / "tiny"
    results = json.loads((folder / "bbox.json").read_text())
    assert results
    assert results[0].keys() == {"image_id", "category_id", "bbox", "score"}
    assert not (folder / "box_proposals.pth").exists()
    predictor = Predictor.from_checkpoint(tiny_run.output, device="cpu", confidence_threshold=0.0)
    picture = cv2.imread(str(next((tiny_run.folder / "data").rglob("*.jpg"))))
    assert len(predictor(picture)) == 20
    with pytest.raises(SystemExit):
        tiny_run.train(keys=keys | {"MODEL.RETINANET.NUM_CLASSES": 7, "OUTPUT_DIR": tiny_run.folder / "other"})
    assert "set MODEL.RETINANET.NUM_CLASSES 4" in "".join(capsys.readouterr())
