"""tools/export.py on a run's folder, its errors, and what example/run_onnx.py makes of the file."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.apps import export as app
from maskrcnn_benchmark.apps.export_images import CanvasPreparer, compare
from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.data.transforms.build import ImagePreparer
from maskrcnn_benchmark.data.transforms.normalize import Normalize
from maskrcnn_benchmark.export.metadata import KEY
from maskrcnn_benchmark.export.program import InputShape
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.ops import paste_masks
from tests.export.networks import make_network
from tests.modeling.test_detector import make_cfg

SETTINGS = {
    "INPUT__MIN_SIZE_TEST": 64,
    "INPUT__MAX_SIZE_TEST": 96,
    "INPUT__PIXEL_STD": (57.0, 57.5, 58.0),
    "DATALOADER__SIZE_DIVISIBILITY": 32,
    "DATASETS__CLASSES": ("disc", "square", "star"),
}


@pytest.fixture
def run_folder(tmp_path):
    """A folder as training leaves it, with a random network, and a picture."""
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = make_cfg(**SETTINGS)
    torch.save({"model": make_network("mask").state_dict(), "config": cfg.dump()}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
    picture = np.kron(np.random.default_rng(0).integers(0, 255, (6, 9, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    return folder


def parse(*words):
    return app.make_parser().parse_args([str(word) for word in words])


@pytest.fixture
def run_onnx(repository):
    """The module example/run_onnx.py."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    spec = importlib.util.spec_from_file_location("run_onnx", repository / "example" / "run_onnx.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "100x64"), r"100x64: both must be multiples .* 32; take 128x64"),
        (("--size", "big"), "HEIGHTxWIDTH in pixels, for instance 800x1344, got 'big'"),
        (("--batch", "0"), "--batch must be at least 1, got 0"),
        (("--precision", "int8"), "--precision int8 needs --calibrate"),
        (("--opts", "TEST.BBOX_AUG.ENABLED", "True"), "looks at a picture once"),
    ],
)
def test_what_a_user_gets_wrong(run_folder, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as exit_info:
        app.main(parse("--weights", run_folder, "--output", tmp_path / "out", "--format", "pt2", *words))
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error), error


def test_the_default_sizes_hold_every_picture():
    cfg = make_cfg(**(SETTINGS | {"INPUT__MAX_SIZE_TEST": 100}))
    shapes = app.make_shapes(cfg, None, batch=3, takes_pixels=False)
    assert shapes == [InputShape(3, 64, 128, False), InputShape(3, 128, 64, False)]
    normalize = Normalize((0, 0, 0), (1, 1, 1))
    for height, width in [(480, 640), (640, 480), (10, 500), (64, 64), (333, 97)]:
        shape = shapes[0] if height <= width else shapes[1]
        size = CanvasPreparer(shape, min_size=64, max_size=100, normalize=normalize).size_on_canvas((height, width))
        tensor, _ = ImagePreparer.from_config(cfg)(np.zeros((height, width, 3), np.uint8))
        assert size == tuple(tensor.shape[1:])
    other = CanvasPreparer(shapes[0], min_size=64, max_size=100, normalize=normalize)
    assert other.size_on_canvas((640, 480)) == (64, 48), "a portrait on a landscape canvas keeps its proportions"


def test_two_programs_are_compared():
    ours = {
        "boxes": np.float32([[[0, 0, 9, 9], [20, 20, 30, 30], [1, 0, 9, 9], [5, 5, 6, 6]]]),
        "scores": np.float32([[0.9, 0.8, 0.7, 0.0]]),
        "labels": np.int64([[1, 2, 1, 0]]),
        "valid": np.array([[True, True, True, False]]),
    }
    assert str(compare([(ours, ours)])).startswith("3 detections, 0 without a partner; largest differences: box 0.0000")
    theirs = {name: values[:, [1, 0, 2, 3]].copy() for name, values in ours.items()}
    theirs["boxes"][0, 0] += 0.25
    theirs["scores"][0, 1] -= 0.125
    found = compare([(ours, theirs)])
    assert (found.detections, found.unmatched, found.box, found.score) == (3, 0, 0.25, pytest.approx(0.125))
    theirs["labels"][0, 0] = 1
    assert compare([(ours, theirs)]).unmatched == 2


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.timeout(900)
def test_every_form_from_the_command_line(repository, run_folder, tmp_path, run_onnx):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    picture = tmp_path / "picture.png"
    command = [
        sys.executable,
        repository / "tools" / "export.py",
        "--weights",
        run_folder,
        "--output",
        tmp_path / "out",
    ]
    command += ["--format", "onnx", "pt2", "portable", "--precision", "fp32", "fp16", "int8", "--calibrate", picture]
    command += ["--check", picture, "--size", "64x96"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    names = [f"model_64x96.{ending}" for ending in ("onnx", "fp16.onnx", "int8.onnx", "pt2", "portable.pt2")]
    for name in names:
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())["precision"] in ("fp32", *name.split("."))
        assert f"{name} beside PyTorch: " in done.stderr + done.stdout
    exact = [line for line in (done.stderr + done.stdout).splitlines() if "beside PyTorch" in line and "fp" not in line]
    assert sum(" 0 without a partner" in line for line in exact) >= 3

    detector = run_onnx.OnnxDetector(str(tmp_path / "out" / "model_64x96.onnx"))
    assert [category["name"] for category in detector.metadata["categories"]] == ["disc", "square", "star"]
    image = cv2.imread(str(picture))
    cfg = make_cfg(**SETTINGS)
    preparer = CanvasPreparer.from_config(cfg, InputShape(1, 64, 96))
    for own, expected in zip(detector.prepare(image), preparer([image]), strict=True):
        assert np.array_equal(own, expected.numpy())
    found = detector(image)
    model = build_detection_model(cfg).eval()
    DetectronCheckpointer(cfg, model).load_weights(str(run_folder / "model_final.pth"), strict=True)
    tensor, _ = ImagePreparer.from_config(cfg)(image)
    with torch.no_grad():
        boxlist = model(tensor[None])[0].resize((image.shape[1], image.shape[0]))
    assert len(boxlist) == len(found["boxes"]) > 5
    np.testing.assert_allclose(found["boxes"], boxlist.bbox.numpy(), atol=0.1)
    masks = paste_masks(boxlist.get_field("mask")[:, 0], boxlist.bbox, image_size=image.shape[:2], threshold=0.5)
    assert (found["masks"] != masks.numpy()).mean() < 1e-3

    command = [sys.executable, str(repository / "example" / "run_onnx.py"), "out/model_64x96.onnx"]
    command += ["--images", str(picture), "--output", "out.json", "--confidence-threshold", "0"]
    subprocess.run(command, check=True, cwd=tmp_path)
    result = json.loads((tmp_path / "out.json").read_text())
    assert [image["height"] for image in result["images"]] == [120]
    assert len(result["annotations"]) == len(found["boxes"])
    decoded = mask_utils.decode(result["annotations"][0]["segmentation"]).astype(bool)
    assert np.array_equal(decoded, found["masks"][0])


@pytest.mark.parametrize("takes_pixels", [True, False])
@pytest.mark.parametrize("to_bgr255", [True, False])
@pytest.mark.parametrize("size", [(120, 180), (180, 120), (64, 96), (500, 20)])
def test_inputs_are_those_of_the_package(run_onnx, takes_pixels, to_bgr255, size):
    unit = 1 if to_bgr255 else 1 / 255
    mean, std = ([value * unit for value in values] for values in ((103.0, 116.0, 123.0), (57.0, 57.5, 58.0)))
    cfg = make_cfg(**(SETTINGS | dict(INPUT__PIXEL_MEAN=mean, INPUT__PIXEL_STD=std, INPUT__TO_BGR255=to_bgr255)))
    shape = InputShape(2, 64, 96, takes_pixels)
    detector = object.__new__(run_onnx.OnnxDetector)
    described = app.make_metadata(cfg, shape, lambda images, sizes: {"valid": images}, "nowhere/model.pth")
    detector.metadata = json.loads(described.to_json())
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    images, sizes = detector.prepare(picture)
    expected_images, expected_sizes = CanvasPreparer.from_config(cfg, shape)([picture])
    assert np.array_equal(sizes, expected_sizes.numpy())
    assert images.dtype == expected_images.numpy().dtype
    np.testing.assert_allclose(images[0], expected_images[0].numpy(), atol=1e-5)


def test_run_lengths_are_those_of_pycocotools(run_onnx):
    generator = np.random.default_rng(0)
    masks = [generator.random((37, 51)) < share for share in (0, 0.01, 0.5, 0.99, 1)]
    masks.append(np.zeros((600, 700), bool))
    masks[-1][100:500, 3:690] = True
    for mask in masks:
        expected = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert run_onnx.encode_mask(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}


def test_pasting_is_that_of_the_package(run_onnx):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand((8, 14, 14), generator=generator)
    corners = torch.rand((8, 2), generator=generator) * 100 - 20
    boxes = torch.cat((corners, corners + torch.rand((8, 2), generator=generator) * 90), dim=1)
    expected = paste_masks(masks, boxes, image_size=(90, 110), threshold=0.5)
    own = [run_onnx.paste(m, b, 90, 110) > 0.5 for m, b in zip(masks.numpy(), boxes.numpy(), strict=True)]
    assert np.not_equal(own, expected.numpy()).sum() <= 5  # values within rounding of the threshold
    assert expected.sum() > 1000


def test_the_example_needs_no_part_of_the_package(repository):
    text = (repository / "example" / "run_onnx.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    own_and_standard = set(sys.stdlib_module_names) | {"cv2", "numpy", "onnxruntime"}
    assert imported <= own_and_standard
    assert f'METADATA_KEY = "{KEY}"' in text
