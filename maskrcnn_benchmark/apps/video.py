"""Frames of video files and cameras, and videos of what was drawn on them, by OpenCV's FFmpeg."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

logger = logging.getLogger("maskrcnn_benchmark.predict")

_FALLBACK_RATE = 25.0  # frames a second, where the source does not say
_MISSING_SHARE = 0.05  # containers only estimate their number of frames


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Args:
        image: uint8 [H, W, 3] BGR.
        index: its number, from 0.
        seconds: its time from the beginning; of a file by the frame rate, of a camera by the clock.
    """

    image: np.ndarray
    index: int
    seconds: float


class VideoReader:
    """The frames of a video file, or of a camera until it is closed.

    Args:
        source: path of a file, or number of a camera, 0 for the first.

    Attributes:
        rate: frames a second.
        name: of the source, for messages and files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video that OpenCV can read, or there is no such camera.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        self.is_camera = isinstance(source, int)
        self.name = f"camera_{source}" if self.is_camera else str(source)
        if not self.is_camera and not Path(source).is_file():
            raise FileNotFoundError(f"the video {source} does not exist")
        self._capture = cv2.VideoCapture(source if self.is_camera else str(source))
        if not self._capture.isOpened():
            remedy = (
                "connect one, close the program that uses it, or choose another number"
                if self.is_camera
                else "convert it, ffmpeg -i IN out.mp4"
            )
            raise ValueError(f"OpenCV cannot read {self.name.replace('_', ' ')} as a video; {remedy}")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or _FALLBACK_RATE

    def __iter__(self) -> Iterator[Frame]:
        """Read on; a file that ends early is reported with the number of frames that were read."""
        expected = 0 if self.is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        index, begin = 0, time.perf_counter()
        while True:
            is_read, image = self._capture.read()
            if not is_read:
                break
            yield Frame(image, index, time.perf_counter() - begin if self.is_camera else index / self.rate)
            index += 1
        if index == 0:
            raise ValueError(f"{self.name} has no frame that OpenCV can decode")
        if index < expected * (1 - _MISSING_SHARE):
            logger.warning("%s ends after %d of %d frames: it is damaged or cut off", self.name, index, expected)

    def close(self) -> None:
        """Let the file or camera go."""
        self._capture.release()


@contextlib.contextmanager
def video_writer(path: Path, *, rate: float) -> Iterator[VideoWriter]:
    """Write a video (MPEG-4) beside ``path`` and rename it when it is whole; an error leaves nothing."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    writer = VideoWriter(partial, rate=rate)
    try:
        yield writer
        writer.close()
        if writer.is_begun:
            os.replace(partial, path)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)


class VideoWriter:
    """Frames to a file; its size is that of the first one.

    Args:
        path: ends in .mp4.
        rate: frames a second.
    """

    def __init__(self, path: Path, *, rate: float) -> None:
        self.path = path
        self.rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._num_written = 0

    @property
    def is_begun(self) -> bool:
        """Whether there is a frame."""
        return self._writer is not None

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Append a frame, as often as the time since the last one asks for.

        Args:
            image: uint8 [H, W, 3] BGR.
            seconds: its time from the beginning of the video.

        Raises:
            OSError: the file cannot be written.
        """
        if self._writer is None:
            height, width = image.shape[:2]
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self.rate, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"OpenCV cannot write a video of {width}x{height} to {self.path.parent}")
        due = round(seconds * self.rate) + 1
        for _ in range(due - self._num_written):
            self._writer.write(image)
        self._num_written = max(self._num_written, due)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.release()
