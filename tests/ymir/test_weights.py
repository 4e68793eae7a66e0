"""Which weights a job begins with, and what finetuning takes over from a model of other classes."""

from __future__ import annotations

import os

import pytest
import torch

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.dataset import TrainingData
from maskrcnn_benchmark.ymir.finetune import build_start_weights
from maskrcnn_benchmark.ymir.network_config import make_portable_config, make_training_plan
from maskrcnn_benchmark.ymir.settings import JobSettings
from maskrcnn_benchmark.ymir.weights import choose_weights, make_class_names, make_local_weights
from tests.ymir import small

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = TrainingData("/tmp/train.json", "/tmp/val.json", has_masks=True)


def settings(**values):
    return JobSettings({"gpu_id": "", "class_names": ["a", "b"], "config_file": small.CONFIG, **values})


def plan(values, weights="", data=DATA):
    return make_training_plan(cfg, values, data, root=ROOT, output_dir="/tmp/run", num_processes=2, weights=weights)


def place(folder, *names):
    """Files, each a second older than the next."""
    for age, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 + age, 1e9 + age))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["s1/best_a.pth", "s2/model_2.pth", "s2/model_3.pth"], "s1/best_a.pth"),
        (["s1/model_9.pth", "s2/model_2.pth", "s2/model_2.onnx"], "s2/model_2.pth"),
        (["model.pt", "config.yaml"], "model.pt"),
    ],
)
def test_the_best_weights_or_else_the_newest(tmp_path, names, chosen):
    place(tmp_path, *names)
    for listed in (names, [str(tmp_path / name) for name in names], ", ".join(names)):
        found = choose_weights(settings(key=listed), "key", str(tmp_path))
        assert found.path == str(tmp_path / chosen)
        assert found.config_file == (str(tmp_path / "config.yaml") if "config.yaml" in names else None)


def test_the_config_beside_the_weights_comes_first(tmp_path):
    place(tmp_path, "s1/config.yaml", "s2/config.yaml", "s2/model.pth")
    found = choose_weights(settings(key=["s1/config.yaml", "s2/model.pth"]), "key", str(tmp_path))
    assert found.config_file == str(tmp_path / "s2" / "config.yaml")


def test_weights_that_are_not_there(tmp_path):
    assert choose_weights(settings(), "key", str(tmp_path)) is None
    assert choose_weights(settings(key=[]), "key", str(tmp_path)) is None
    place(tmp_path, "config.yaml")
    with pytest.raises(JobError, match=r"config\.yaml, model\.pth") as caught:
        choose_weights(settings(key=["config.yaml", "model.pth"]), "key", str(tmp_path))
    assert caught.value.code == ReturnCode.WEIGHTS


def test_weights_of_the_image(tmp_path, monkeypatch):
    monkeypatch.setenv("YMIR_WEIGHTS_DIR", str(tmp_path))
    values = settings(config_file="configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    assert make_local_weights(values, cfg, ROOT) == ""
    assert make_local_weights(settings(config_file=values.text("config_file"), allow_download="True"), cfg, ROOT)
    place(tmp_path, "imagenet/R-50.pkl")
    assert make_local_weights(values, cfg, ROOT) == str(tmp_path / "imagenet" / "R-50.pkl")
    place(tmp_path, "e2e_mask_rcnn_R_50_FPN_1x.pth")
    assert make_local_weights(values, cfg, ROOT) == str(tmp_path / "e2e_mask_rcnn_R_50_FPN_1x.pth")
    assert make_local_weights(settings(), cfg, ROOT) == ""


def test_the_config_of_a_training():
    made = plan(settings(max_iter="300", learning_rate="0.01", val_interval="70", batch_size_per_gpu="3",
                         cfg_options="SOLVER.WEIGHT_DECAY 0.0002"), weights="/tmp/w.pth").cfg  # fmt: skip
    assert (made.SOLVER.MAX_ITER, made.SOLVER.BASE_LR, made.SOLVER.WEIGHT_DECAY) == (300, 0.01, 0.0002)
    assert (made.SOLVER.IMS_PER_BATCH, made.TEST.IMS_PER_BATCH) == (6, 6)
    assert (made.SOLVER.TEST_PERIOD, made.SOLVER.CHECKPOINT_PERIOD, made.SOLVER.LOG_PERIOD) == (70, 70, 3)
    # The published schedule, a tenth as long.
    assert made.SOLVER.STEPS == (110, 152, 194, 226, 252, 270, 284)
    assert (made.MODEL.DEVICE, made.MODEL.WEIGHT, made.MODEL.ROI_BOX_HEAD.NUM_CLASSES) == ("cpu", "/tmp/w.pth", 3)
    assert made.DATASETS.CLASSES == ("a", "b")


def test_options_win_over_everything():
    options = "SOLVER.MAX_ITER 6000 SOLVER.STEPS (5,6) MODEL.BACKBONE.FREEZE_CONV_BODY_AT 2"
    made = plan(settings(max_iter=300, cfg_options=options)).cfg
    assert (made.SOLVER.MAX_ITER, made.SOLVER.STEPS, made.SOLVER.TEST_PERIOD) == (6000, (5, 6), 600)
    assert made.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 2
    assert plan(settings(learning_rate=0)).cfg.SOLVER.BASE_LR == 0.05


def test_random_weights_are_not_frozen():
    values = settings(config_file="configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    assert plan(values).cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 0
    assert plan(values, weights="/tmp/w.pth").cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 2


@pytest.mark.parametrize(
    ("kind", "has_masks", "expected"), [(2, True, False), (4, False, True), (None, True, True), (None, False, False)]
)
def test_whether_masks_are_trained(kind, has_masks, expected):
    data = TrainingData("/tmp/a", "/tmp/b", has_masks)
    assert plan(settings(object_type=kind), data=data).has_masks is expected


def test_a_config_without_a_mask_head():
    with pytest.raises(JobError, match="no mask head") as caught:
        plan(settings(object_type=4, config_file="configs/e2e_faster_rcnn_R_50_FPN_1x.yaml"))
    assert caught.value.code == ReturnCode.CONFIG
    with pytest.raises(JobError, match="does not exist"):
        plan(settings(config_file="configs/none.yaml"))


def build(values):
    return build_detection_model(plan(values).cfg)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of the classes a and b with their config, and the tensors."""
    folder = tmp_path_factory.mktemp("model")
    values = settings(cfg_options=small.cfg_options())
    torch.manual_seed(3)
    state = {
        name: torch.randn_like(t) if t.is_floating_point() else t for name, t in build(values).state_dict().items()
    }
    torch.save({"model": state}, folder / "model.pth")
    (folder / "config.yaml").write_text(make_portable_config(plan(values).cfg))
    return folder, state


def finetune(trained, tmp_path, names):
    folder, _ = trained
    chosen = choose_weights(settings(key=["model.pth"]), "key", str(folder))
    old = make_class_names(chosen)
    assert tuple(old) == ("a", "b")
    made = plan(settings(class_names=names, cfg_options=small.cfg_options())).cfg
    build_start_weights(made, chosen.path, str(tmp_path / "start.pth"), old_names=old, new_names=names)
    return torch.load(tmp_path / "start.pth", weights_only=True)["model"]


def test_the_same_classes_keep_all(trained, tmp_path):
    state = finetune(trained, tmp_path, ["a", "b"])
    assert all(torch.equal(state[name], tensor) for name, tensor in trained[1].items() if "anchor" not in name)


@pytest.mark.parametrize("names", [["c", "b", "a"], ["b", "a"], ["c"]])
def test_classes_are_taken_over_by_name(trained, tmp_path, names):
    before, state = trained[1], finetune(trained, tmp_path, names)
    place_of = {"a": 1, "b": 2}
    for layer, rows in (("box.predictor.cls_score", 1), ("box.predictor.bbox_pred", 4),
                        ("mask.predictor.mask_fcn_logits", 1)):  # fmt: skip
        for kind in ("weight", "bias"):
            name = f"roi_heads.{layer}.{kind}"
            old, new = (tensors[name].reshape(-1, rows, *tensors[name].shape[1:]) for tensors in (before, state))
            assert len(new) == len(names) + 1
            assert torch.equal(new[0], old[0])
            for place_now, each in enumerate(names, start=1):
                kept = each in place_of and torch.equal(new[place_now], old[place_of[each]])
                assert kept is (each in place_of)
    shared = "backbone.body.stem.conv1.weight"
    assert torch.equal(state[shared], before[shared])


def test_weights_of_another_network(trained, tmp_path):
    made = plan(settings(cfg_options=small.cfg_options(MODEL__ROI_BOX_HEAD__MLP_HEAD_DIM=16))).cfg
    source = str(trained[0] / "model.pth")
    with pytest.raises(ValueError, match="does not fit the network of config_file"):
        build_start_weights(made, source, str(tmp_path / "s"), old_names=(), new_names=["a", "b"])
