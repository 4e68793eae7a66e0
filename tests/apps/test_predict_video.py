"""Videos and cameras: frames, times, drawn videos, the json, and what is wrong with files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.apps.categories import Category
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_files import predict_files
from maskrcnn_benchmark.apps.video import VideoReader, video_writer
from maskrcnn_benchmark.structures.bounding_box import BoxList

RATE, HEIGHT, WIDTH, NUM_FRAMES = 10.0, 96, 128, 12


class BrightSpot(nn.Module):
    """Finds the bright square of a frame, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: object) -> list[BoxList]:
        height, width = images.image_sizes[0]
        ys, xs = torch.nonzero(images.tensors[0].mean(0) > 128, as_tuple=True)
        box = torch.stack([xs.min(), ys.min(), xs.max(), ys.max()])[None].float() if len(xs) else torch.zeros(0, 4)
        result = BoxList(box, (width, height))
        result.add_field("scores", torch.full((len(box),), 0.9))
        result.add_field("labels", torch.ones(len(box), dtype=torch.int64))
        return [result]


def _whole(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    return torch.from_numpy(image).permute(2, 0, 1).float(), image.shape[:2]


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(BrightSpot(), prepare=_whole, categories=[Category(1, "spot")])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A bright square that moves six pixels to the right each frame; none in the last."""
    path = tmp_path / "clips" / "moving spot.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for index in range(NUM_FRAMES):
        frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        if index < NUM_FRAMES - 1:
            frame[30:50, 10 + 6 * index : 30 + 6 * index] = 255
        writer.write(frame)
    writer.release()
    return path


def test_every_frame_is_found_where_it_is(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    assert predict_files(predictor, [str(clip)], tmp_path / "out") == []
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["frame_index"] for image in content["images"]] == list(range(NUM_FRAMES))
    assert [image["seconds"] for image in content["images"]] == pytest.approx([i / RATE for i in range(NUM_FRAMES)])
    assert {(image["file_name"], image["height"], image["width"]) for image in content["images"]} == {
        (str(clip), HEIGHT, WIDTH)
    }
    found = {annotation["image_id"]: annotation["bbox"] for annotation in content["annotations"]}
    assert sorted(found) == list(range(1, NUM_FRAMES))
    for image_id, box in found.items():
        assert box == pytest.approx([10 + 6 * (image_id - 1), 30, 20, 20], abs=1)


def test_the_drawn_video_has_the_same_frames(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    predict_files(predictor, [clip], tmp_path / "out")
    drawn = list(VideoReader(tmp_path / "out" / "moving spot.mp4"))
    assert len(drawn) == NUM_FRAMES
    assert drawn[3].image.shape == (HEIGHT, WIDTH, 3)
    saturation = cv2.cvtColor(drawn[3].image, cv2.COLOR_BGR2HSV)[..., 1]
    assert saturation[28:52, 26:52].max() > 100  # the box is coloured, the clip was grey
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["moving spot.mp4", "predictions.json"]


def test_folders_hold_pictures_and_videos(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(clip.with_name("a.png")), np.full((40, 60, 3), 200, np.uint8))
    predict_files(predictor, [str(clip.parent)], tmp_path / "out", draw=False, seconds=0.45)
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(Path(image["file_name"]).name, image.get("frame_index")) for image in content["images"]] == [
        ("a.png", None),
        *(("moving spot.avi", index) for index in range(5)),
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_broken_videos_are_named_and_the_others_done(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    (clip.parent / "text.mp4").write_text("no video")
    (clip.parent / "empty.mkv").write_bytes(b"")
    errors = predict_files(predictor, [clip.parent], tmp_path / "out")
    assert len(errors) == 2
    assert "empty.mkv" in errors[0]
    assert "text.mp4" in errors[1]
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]) == NUM_FRAMES


def test_a_cut_video_says_how_much_there_was(
    predictor: Predictor, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    errors = predict_files(predictor, [clip], tmp_path / "out", draw=False)
    num_images = len(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"])
    assert num_images < NUM_FRAMES
    assert errors or f"ends after {num_images} of {NUM_FRAMES} frames" in caplog.text


def test_an_error_leaves_the_earlier_results(predictor: Predictor, clip: Path, tmp_path: Path) -> None:
    predict_files(predictor, [clip], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        raise RuntimeError("the network is ill")

    predictor.prepare = fail
    with pytest.raises(RuntimeError, match="ill"):
        predict_files(predictor, [clip], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_slow_camera_keeps_its_pace(tmp_path: Path) -> None:
    """Pictures at uneven times last as long in the video as they did."""
    with video_writer(tmp_path / "camera.mp4", rate=RATE) as writer:
        for value, seconds in ((50, 0.0), (100, 0.31), (150, 0.33), (200, 0.98)):
            writer.write(np.full((HEIGHT, WIDTH, 3), value, np.uint8), seconds)
    values = [int(frame.image.mean()) for frame in VideoReader(tmp_path / "camera.mp4")]
    assert len(values) == 11
    assert values == sorted(values)
    assert values[-1] == pytest.approx(200, abs=4)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="cannot read camera 97"):
        VideoReader(97)


def test_the_commands_say_what_is_missing(repository: Path, tmp_path: Path) -> None:
    for command, message in (
        (["tools/predict.py", "--weights", "x"], "nothing to detect on"),
        (["demo/webcam.py", "--config-file", "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"], "--camera 0"),
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=repository, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
