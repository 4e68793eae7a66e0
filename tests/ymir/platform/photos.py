"""Photos with annotated objects, as YMIR holds them: each known by the sha1 of its file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("forklift", "pallet")


@dataclass(frozen=True, eq=False)
class Thing:
    """One object: its class, and its mask (H, W) of truth values."""

    class_name: str
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, w, h in pixels; the last column is ``x + w - 1``."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return (
            int(columns[0]), int(rows[0]),
            int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1),
        )  # fmt: skip

    @property
    def ring(self) -> list[float]:
        """The outline of the mask's largest part, x and y in turn."""
        outlines, _ = cv2.findContours(self.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return [float(value) for value in max(outlines, key=len).reshape(-1)]


@dataclass(frozen=True, eq=False)
class Photo:
    """The bytes of an image file, its ending, its size in pixels, and its objects."""

    content: bytes
    suffix: str
    width: int
    height: int
    things: tuple[Thing, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.sha1(self.content).hexdigest()


def encode(pixels: np.ndarray, things: tuple[Thing, ...], suffix: str = ".jpg") -> Photo:
    """A photo of the pixels (H, W, 3), BGR bytes."""
    done, content = cv2.imencode(suffix, pixels)
    assert done, f"OpenCV cannot write {suffix}"
    return Photo(content.tobytes(), suffix, pixels.shape[1], pixels.shape[0], things)


def draw(number: int, seed: int = 0, size: tuple[int, int] = (128, 112)) -> list[Photo]:
    """``number`` generated photos of ``size`` (width, height): pallets are bright bars, forklifts dark ellipses.

    None is empty but every seventh; no two are the same, whatever the seeds.
    """
    width, height = size
    photos = []
    for index in range(number):
        random = np.random.default_rng([seed, index])
        pixels = random.integers(90, 140, (height, width, 3), dtype=np.uint8)
        things = []
        for _ in range(0 if index % 7 == 6 else int(random.integers(1, 4))):
            name = CLASSES[int(random.integers(2))]
            w, h = (int(each) for each in random.integers(24, 48, 2))
            x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
            mask = np.zeros((height, width), np.uint8)
            if name == "pallet":
                mask[y : y + h, x : x + w] = 1
            else:
                cv2.ellipse(mask, (x + w // 2, y + h // 2), (w // 2 - 1, h // 2 - 1), 0, 0, 360, 1, -1)
            seen = mask.astype(bool)
            pixels[seen] = (40, 60, 220) if name == "pallet" else (180, 30, 20)
            things = [Thing(each.class_name, each.mask & ~seen) for each in things]
            things.append(Thing(name, seen))
        photos.append(encode(pixels, tuple(each for each in things if each.mask.sum() > 40)))
    return photos


def penn_fudan(folder: Path, number: int, longest_side: int = 320) -> list[Photo]:
    """The first ``number`` photos of PennFudanPed, made smaller; their one class is "pedestrian"."""
    photos = []
    for path in sorted((folder / "PNGImages").glob("*.png"))[:number]:
        pixels = cv2.imread(str(path))
        labels = cv2.imread(str(folder / "PedMasks" / f"{path.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        scale = longest_side / max(pixels.shape[:2])
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        things = tuple(Thing("pedestrian", labels == label) for label in np.unique(labels) if label)
        photos.append(encode(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), things))
    return photos
