"""Prediction on pictures: one picture, files, the published COCODemo, the command, and what is wrong with files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils
from torch import Tensor, nn

from maskrcnn_benchmark.apps.categories import (
    Category,
    coco_categories,
    default_categories,
    load_categories,
    save_categories,
)
from maskrcnn_benchmark.apps.coco_demo import COCODemo
from maskrcnn_benchmark.apps.predict import Predictor, find_checkpoint
from maskrcnn_benchmark.apps.predict_files import find_images, main, make_parser, predict_files, read_upright
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.config import CfgNode, cfg
from maskrcnn_benchmark.data.synthetic_scene import SHAPE_NAMES
from maskrcnn_benchmark.engine.precision import Precision
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList

DEMO_CONFIG = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
CATEGORIES = [Category(7, "disc"), Category(3, "square")]


class FakeNetwork(nn.Module):
    """Finds one sure and one doubtful object, always at the same share of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: object) -> list[BoxList]:
        height, width = images.image_sizes[0]
        share = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.5, 0.25, 0.9, 0.75]])
        result = BoxList(share * torch.tensor([width, height, width, height]), (width, height))
        result.add_field("scores", torch.tensor([0.3, 0.9]))
        result.add_field("labels", torch.tensor([1, 2]))
        result.add_field("mask", torch.ones(2, 1, 28, 28))
        return [result]


def _halve(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    small = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2))
    return torch.from_numpy(small).permute(2, 0, 1).float(), small.shape[:2]


def _predictor(**kwargs: float) -> Predictor:
    return Predictor(FakeNetwork(), prepare=_halve, categories=CATEGORIES, **kwargs)


def test_the_network_runs_in_the_format_and_layout_of_the_config(image, monkeypatch):
    monkeypatch.setattr("maskrcnn_benchmark.engine.precision.cpu_is_fast_in", lambda dtype: True)
    monkeypatch.setattr("maskrcnn_benchmark.engine.precision.cpu_is_fast_channels_last", lambda: True)
    config = cfg.clone()
    config.merge_from_list(["MODEL.DEVICE", "cpu", "DTYPE", "bfloat16", "NHWC", True])
    predictor = _predictor(precision=Precision.from_config(config, torch.device("cpu")))
    seen = []

    def look(_: nn.Module, inputs: tuple) -> None:
        last = inputs[0].tensors.is_contiguous(memory_format=torch.channels_last)
        seen.append((torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"), last))

    predictor.model.register_forward_pre_hook(look)
    predictor(image)
    plain = _predictor()
    plain.model.register_forward_pre_hook(look)
    plain(image)
    assert seen == [(torch.bfloat16, True), (False, False)]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path: Path, image: np.ndarray) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.jpg", "c.JPEG"):
        cv2.imwrite(str(folder / name), image)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_prediction_is_in_the_pictures_pixels(image: np.ndarray) -> None:
    prediction = _predictor()(image)
    assert prediction.size == (200, 120)
    torch.testing.assert_close(prediction.bbox, torch.tensor([[100.0, 30.0, 180.0, 90.0]]))
    assert prediction.get_field("labels").tolist() == [2]
    mask = prediction.get_field("mask")
    assert mask.shape == (1, 1, 120, 200)
    assert mask.dtype == torch.bool
    assert mask[0, 0, 60, 140]
    assert not mask[0, 0, 60, 90]


def test_threshold_and_order(image: np.ndarray) -> None:
    assert _predictor(confidence_threshold=0.2)(image).get_field("scores").tolist() == pytest.approx([0.9, 0.3])
    assert len(_predictor(confidence_threshold=0.95)(image)) == 0


def test_drawing_shows_the_detection(image: np.ndarray) -> None:
    predictor = _predictor()
    picture = predictor.draw(image, predictor(image))
    assert picture.shape == image.shape
    changed = (picture != image).any(axis=2)
    assert changed[60, 140]
    assert not changed[100:, :90].any()


def test_files_folders_and_patterns(pictures: Path) -> None:
    names = [path.name for path in find_images([str(pictures / "b.png"), str(pictures), str(pictures / "*.jpg")])]
    assert names == ["b.png", "a.jpg", "c.JPEG"]
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        find_images([str(pictures / "nothing_here*.png")])


def test_results_on_disk(pictures: Path, tmp_path: Path) -> None:
    errors = predict_files(_predictor(), [str(pictures)], tmp_path / "out")
    assert errors == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "predictions.json"]
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(entry["file_name"]).name for entry in content["images"]] == ["a.jpg", "b.png", "c.JPEG"]
    assert content["categories"] == [
        {"id": 7, "name": "disc", "supercategory": ""},
        {"id": 3, "name": "square", "supercategory": ""},
    ]
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3]
    for annotation in content["annotations"]:
        assert annotation["category_id"] == 3
        assert annotation["bbox"] == pytest.approx([100, 30, 81, 61])
        mask = mask_utils.decode(annotation["segmentation"])
        assert mask.shape == (120, 200)
        assert mask.sum() == annotation["area"] == pytest.approx(81 * 61, rel=0.1)


def test_equal_names_from_two_folders_are_kept_apart(pictures: Path, image: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    cv2.imwrite(str(tmp_path / "more" / "a.png"), image)
    predict_files(_predictor(), [str(pictures / "a.jpg"), str(tmp_path / "more" / "a.png")], tmp_path / "out")
    assert (tmp_path / "out" / "a.jpg").is_file()
    assert (tmp_path / "out" / "a_2.jpg").is_file()


def test_broken_pictures_are_reported_and_the_others_done(pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "a.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.png").write_text("no picture")
    errors = predict_files(_predictor(), [str(pictures)], tmp_path / "out", draw=False)
    assert len(errors) == 3
    for name, error in zip(("cut.jpg", "empty.png", "text.png"), errors, strict=True):
        assert name in error
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["id"] for entry in content["images"]] == [1, 2, 3]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((40, 80, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", upright)[1].tobytes()
    # An APP1 segment with one EXIF entry: orientation (0x0112) = 6, a quarter turn.
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    marked = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    (tmp_path / "turned.jpg").write_bytes(marked)
    assert read_upright(tmp_path / "turned.jpg").shape == (80, 40, 3)


def test_coco_categories_and_numbers() -> None:
    categories = coco_categories()
    assert len(categories) == 80
    by_name = {category.name: category.id for category in categories}
    assert (by_name["person"], by_name["stop sign"], by_name["toothbrush"]) == (1, 13, 90)
    assert default_categories(81) == categories
    assert default_categories(3) == [Category(1, "class 1"), Category(2, "class 2")]


def test_categories_file(tmp_path: Path) -> None:
    dataset = SimpleNamespace(categories=["disc", "square"], contiguous_category_id_to_json_id={1: 7, 2: 3})
    save_categories(tmp_path, dataset)
    assert load_categories(tmp_path, 3) == CATEGORIES
    with pytest.raises(ValueError, match="2 categories"):
        load_categories(tmp_path, 4)
    (tmp_path / "categories.json").write_text("[{")
    with pytest.raises(ValueError, match="damaged"):
        load_categories(tmp_path, 3)


@pytest.fixture(scope="module")
def demo_config(repository: Path) -> CfgNode:
    config = cfg.clone()
    config.merge_from_file(repository / DEMO_CONFIG)
    config.MODEL.DEVICE = "cpu"
    config.INPUT.MIN_SIZE_TEST = config.INPUT.MAX_SIZE_TEST = 128
    config.MODEL.ROI_HEADS.SCORE_THRESH = 0.0
    return config


@pytest.fixture(scope="module")
def run_folder(demo_config: CfgNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that ended at once."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = build_detection_model(demo_config)
    DetectronCheckpointer(demo_config, model, save_dir=str(folder), save_to_disk=True).save("model_final")
    names = list(SHAPE_NAMES)
    numbers = {i: i for i in range(1, len(names) + 1)}
    dataset = SimpleNamespace(categories=names, contiguous_category_id_to_json_id=numbers)
    save_categories(folder, dataset)
    return folder


def test_predictor_from_a_run(run_folder: Path, image: np.ndarray) -> None:
    predictor = Predictor.from_checkpoint(run_folder, device="cpu", confidence_threshold=0.0)
    again = Predictor.from_checkpoint(run_folder / "model_final.pth", device="cpu", confidence_threshold=0.0)
    prediction = predictor(image)
    assert prediction.size == (200, 120)
    assert predictor.name_of(1) == SHAPE_NAMES[0]
    torch.testing.assert_close(again(image).bbox, prediction.bbox)
    assert predictor.draw(image, prediction).shape == image.shape


def test_coco_demo(run_folder: Path, demo_config: CfgNode, image: np.ndarray) -> None:
    config = demo_config.clone()
    config.MODEL.WEIGHT = str(run_folder / "model_final.pth")
    config.OUTPUT_DIR = str(run_folder.parent / "elsewhere")
    config.freeze()
    demo = COCODemo(config, confidence_threshold=0.0, min_image_size=100)
    assert demo.run_on_opencv_image(image).shape == image.shape
    assert demo.compute_prediction(image).size == (200, 120)
    assert demo.CATEGORIES[1] == "person"
    heat = COCODemo(config, 0.0, True, 2, 100).run_on_opencv_image(image)
    assert heat.shape == image.shape


def test_steps_of_coco_demo(run_folder: Path, demo_config: CfgNode, image: np.ndarray) -> None:
    config = demo_config.clone()
    config.OUTPUT_DIR = str(run_folder)
    demo = COCODemo(config, confidence_threshold=0.95, min_image_size=100)
    demo.predictor = _predictor(confidence_threshold=0.0)
    every = demo.compute_prediction(image)
    assert every.get_field("scores").tolist() == pytest.approx([0.9, 0.3])
    assert len(demo.select_top_predictions(every)) == 0
    demo.confidence_threshold = 0.5
    top = demo.select_top_predictions(every)
    assert top.get_field("scores").tolist() == pytest.approx([0.9])
    inside = (slice(35, 85), slice(105, 175))
    for overlay, changes_inside in ((demo.overlay_boxes, False), (demo.overlay_mask, True)):
        drawn = overlay(image.copy(), top)
        assert (drawn != image).any()
        assert (drawn[inside] != image[inside]).any() == changes_inside
    assert (demo.overlay_class_names(image.copy(), top) != image).any()
    assert demo.create_mask_montage(image, top).shape == image.shape
    assert (
        demo.compute_colors_for_labels(torch.tensor([1, 2, 1]))[0]
        == demo.compute_colors_for_labels(every.get_field("labels")[1:])[0]
    )
    with pytest.raises(ValueError, match="KEYPOINT_ON"):
        demo.overlay_keypoints(image, top)


def test_checkpoint_without_config_or_at_all(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "bare.pth")
    with pytest.raises(ValueError, match="config-file"):
        Predictor.from_checkpoint(tmp_path / "bare.pth")
    with pytest.raises(FileNotFoundError, match="last_checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_checkpoint(tmp_path / "missing.pth")


def test_moved_run_is_found(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("/another/machine/model_final.pth")
    (tmp_path / "model_final.pth").write_bytes((run_folder / "model_final.pth").read_bytes())
    assert find_checkpoint(tmp_path) == str(tmp_path / "model_final.pth")


def _command(*arguments: object) -> int:
    return main(make_parser().parse_args([*map(str, arguments), "--device", "cpu"]))


def test_command(run_folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--weights", run_folder, "--output", tmp_path / "out")
    assert _command(pictures / "a.jpg", *arguments, "--confidence-threshold", 0) == 0
    assert (tmp_path / "out" / "a.jpg").is_file()
    (pictures / "cut.jpg").write_bytes((pictures / "a.jpg").read_bytes()[:300])
    assert _command(pictures / "cut.jpg", *arguments) == 1
    for faulty, message in (
        (("nothing.jpg", *arguments), "nothing.jpg"),
        ((pictures, "--weights", tmp_path / "missing"), "missing does not exist"),
        ((pictures, *arguments, "--opts", "MODEL.MASK_NO", "True"), "MODEL.MASK_ON"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            _command(*faulty)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        Predictor.from_checkpoint(run_folder, device="cuda")
