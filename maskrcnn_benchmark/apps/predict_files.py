"""Prediction on pictures, folders, glob patterns, videos and a camera: what tools/predict.py does."""

from __future__ import annotations

import argparse
import contextlib
import glob
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from maskrcnn_benchmark.apps.drawing import readable_scale
from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.options.predict import make_parser as make_parser
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.predict_coco import CocoWriter, coco_writer
from maskrcnn_benchmark.apps.video import VIDEO_SUFFIXES, VideoReader, video_writer
from maskrcnn_benchmark.data.image_header import check_pixels, size_in_header
from maskrcnn_benchmark.data.image_io import is_truncated
from maskrcnn_benchmark.utils.allocator import keep_pages
from maskrcnn_benchmark.utils.logger import setup_logger

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

logger = logging.getLogger("maskrcnn_benchmark.predict")

_FRAMES_BETWEEN_LINES = 100


@user_errors()
def main(args: argparse.Namespace) -> int:
    """Run the program with parsed options of ``make_parser``; return its exit status, 1 when a file is broken."""
    if not args.images and args.camera is None:
        raise ValueError("nothing to detect on: give pictures, videos, folders or patterns, or --camera 0")
    keep_pages()
    setup_logger("maskrcnn_benchmark", "", 0)
    inputs: list[Path | int] = [*find_inputs(args.images)] if args.images else []
    inputs += [args.camera] if args.camera is not None else []
    predictor = Predictor.from_checkpoint(
        args.weights,
        config_file=args.config_file,
        options=args.opts,
        device=args.device,
        confidence_threshold=args.confidence_threshold,
    )
    errors = predict_files(predictor, inputs, args.output, draw=not args.no_pictures, seconds=args.seconds)
    logger.info("Results are in %s", args.output)
    if errors:
        logger.error("%d files could not be read: %s", len(errors), "; ".join(errors))
    return 1 if errors else 0


def predict_files(
    predictor: Predictor,
    inputs: Sequence[str | Path | int],
    output_dir: str | os.PathLike[str],
    *,
    draw: bool = True,
    seconds: float | None = None,
) -> list[str]:
    """Predict on pictures, videos and cameras; write ``<name>.jpg`` or ``<name>.mp4`` for each and predictions.json.

    A broken file is reported and passed over. The json is COCO's: images, categories, and annotations with scores; a
    frame is an image with the video's name, ``frame_index`` and ``seconds``. Ctrl-C ends a camera, not the program.

    Args:
        predictor: detects.
        inputs: paths, folders and glob patterns; numbers of cameras.
        output_dir: folder of the results; made when it is missing.
        draw: whether pictures and videos are written.
        seconds: length of what is taken of a video or camera; None: all of it.

    Returns:
        One message for each file that could not be read.

    Raises:
        FileNotFoundError: an input matches no picture or video.
    """
    cameras = [given for given in inputs if isinstance(given, int)]
    files = [os.fspath(given) for given in inputs if not isinstance(given, int)]
    sources: list[Path | int] = [*(find_inputs(files) if files else []), *cameras]
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    errors = []
    begin, job = time.perf_counter(), _Job(predictor, output_dir, draw=draw, seconds=seconds)
    with coco_writer(output_dir / "predictions.json", predictor.categories) as writer:
        for source, name in zip(sources, _unique_names(sources), strict=True):
            try:
                if isinstance(source, int) or source.suffix.lower() in VIDEO_SUFFIXES:
                    job.video(source, name, writer)
                else:
                    job.picture(source, name, writer)
            except (ValueError, OSError) as error:
                logger.warning("%s", error)
                errors.append(str(error))
    duration = time.perf_counter() - begin
    logger.info("%d pictures in %.1f s, %.2f a second", job.num_pictures, duration, job.num_pictures / duration)
    return errors


class _Job:
    """One call of ``predict_files``."""

    def __init__(self, predictor: Predictor, output_dir: Path, *, draw: bool, seconds: float | None) -> None:
        self.predictor = predictor
        self.output_dir = output_dir
        self.draw = draw
        self.seconds = seconds
        self.num_pictures = 0

    def picture(self, path: Path, name: str, writer: CocoWriter) -> None:
        image = read_upright(path)
        prediction = self.predictor(image)
        self.num_pictures += 1
        writer.add(prediction, file_name=str(path))
        if self.draw:
            picture = self.predictor.draw(image, prediction, scale=readable_scale(image))
            _write_picture(self.output_dir / f"{name}.jpg", picture)
        logger.info("%s: %d detections", path, len(prediction))

    def video(self, source: Path | int, name: str, writer: CocoWriter) -> None:
        with contextlib.closing(VideoReader(source)) as reader, contextlib.ExitStack() as stack:
            drawn = (
                stack.enter_context(video_writer(self.output_dir / f"{name}.mp4", rate=reader.rate))
                if self.draw
                else None
            )
            if reader.is_camera:
                logger.info("Recording %s; Ctrl-C ends it", reader.name)
            num_frames, num_detections = 0, 0
            try:
                for frame in reader:
                    if self.seconds is not None and frame.seconds >= self.seconds:
                        break
                    prediction = self.predictor(frame.image)
                    writer.add(prediction, file_name=reader.name, frame_index=frame.index, seconds=frame.seconds)
                    if drawn is not None:
                        drawn.write(self.predictor.draw(frame.image, prediction), frame.seconds)
                    num_frames += 1
                    num_detections += len(prediction)
                    if num_frames % _FRAMES_BETWEEN_LINES == 0:
                        logger.info("%s: %d frames", reader.name, num_frames)
            except KeyboardInterrupt:
                if not reader.is_camera:
                    raise
            self.num_pictures += num_frames
            logger.info("%s: %d frames, %d detections", reader.name, num_frames, num_detections)


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """As ``find_images``, with videos."""
    return find_images(inputs, suffixes=IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def find_images(inputs: Sequence[str], *, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files named by paths, folders (the pictures in them, by name) and glob patterns, each once, in this order.

    Args:
        inputs: what the user gave.
        suffixes: endings, in lower case, of the files taken from a folder.

    Raises:
        FileNotFoundError: an input matches nothing.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes)
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(p) for p in sorted(glob.glob(given, recursive=True)) if Path(p).is_file()]
        if not matches:
            kinds = ", ".join(sorted(suffixes))
            raise FileNotFoundError(f"no picture at {given!r}; give files, folders with {kinds}, or glob patterns")
        found.update(dict.fromkeys(matches))
    return list(found)


def read_upright(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3] BGR, turned upright as its EXIF data say.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no picture, or truncated.
    """
    data = Path(path).read_bytes()
    if is_truncated(data):
        raise ValueError(f"{path} is truncated: it ends after {len(data)} bytes; copy it again")
    if (size := size_in_header(data)) is not None:
        check_pixels(*size, str(path))
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"{path} is not a picture that OpenCV can read ({len(data)} bytes)")
    return image


def _unique_names(sources: Sequence[Path | int]) -> list[str]:
    """File stems, numbered where several pictures share one; camera_N for cameras."""
    seen: dict[str, int] = {}
    names = []
    for source in sources:
        stem = f"camera_{source}" if isinstance(source, int) else source.stem
        seen[stem] = seen.get(stem, 0) + 1
        names.append(stem if seen[stem] == 1 else f"{stem}_{seen[stem]}")
    return names


def _write_picture(path: Path, picture: np.ndarray) -> None:
    encoded, data = cv2.imencode(path.suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not encoded:
        raise OSError(f"OpenCV could not encode {path}")
    path.write_bytes(data.tobytes())
