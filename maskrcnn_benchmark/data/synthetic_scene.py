"""Scenes of geometric shapes: the drawing half of the generated data set.

A scene is a textured background with shapes painted over one another from back to front, and a few hair lines across
all of it, which belong to nothing. Classes differ in outline only: colour, gradient, texture, angle, aspect and size
are drawn alike for all of them, so that a detector has to learn shape.
Letters: H W the canvas, V the vertices of one ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

SHAPE_NAMES = ("square", "disc", "ring", "cross")

MIN_SIZE, MAX_SIZE = 11.0, 98.0  # longer side in pixels before rasterising; the drawn mask stays within 10 to 100
MIN_OBJECTS, MAX_OBJECTS = 3, 10
HIDDEN_RANGE = (0.2, 0.6)  # hidden part of an object that counts as occluded
FREE_HIDDEN = 0.1  # other objects lose at most this much
OCCLUDER_SHARE = 0.395  # above one third, because some occluders find no place
EMPTY_SHARE, CROWD_SHARE = 0.03, 0.05  # shares of the images
MIN_VISIBLE_AREA = 24
_MIN_CONTRAST = 80.0  # mean BGR distance between an object and what lies under it
_SUBPIXEL_BITS = 4


Line: TypeAlias = tuple[np.ndarray, bool, list[float], int]  # points int32 [V, 2], closed, BGR colour, thickness


@dataclass
class SceneObject:
    """One annotated object: label index into SHAPE_NAMES, full and visible masks bool [H, W]."""

    label: int
    full: np.ndarray
    visible: np.ndarray
    is_crowd: bool = False

    @property
    def hidden_fraction(self) -> float:
        """Share of the object's own pixels covered by others, 0 to 1."""
        return 1.0 - np.count_nonzero(self.visible) / np.count_nonzero(self.full)


@dataclass
class Scene:
    """image uint8 [H, W, 3] BGR, the same scene without its objects, and the objects from back to front."""

    image: np.ndarray
    background: np.ndarray
    objects: list[SceneObject]


def make_scene(rng: np.random.Generator, *, image_size: int = 256) -> Scene:
    """Draw one scene on a square canvas of `image_size` pixels; all chance comes from `rng`.

    Raises:
        ValueError: the canvas is too small for the largest shape.
    """
    if image_size < 2 * MAX_SIZE:
        raise ValueError(f"image_size ({image_size}) must be at least {int(2 * MAX_SIZE)} pixels")
    background = draw_background(rng, image_size)
    canvas, objects = background.copy(), []
    if rng.random() >= EMPTY_SHARE:
        if rng.random() < CROWD_SHARE:
            _add_crowd(rng, canvas, objects)
        _add_objects(rng, canvas, objects)
    hairs = _random_lines(rng, image_size, count=int(rng.integers(5, 14)), max_thickness=1)
    _draw_lines(canvas, hairs)
    _draw_lines(background, hairs)
    canvas = cv2.GaussianBlur(canvas, (3, 3), rng.uniform(0.3, 0.7))
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(1.0, 5.0))
    return Scene(_to_uint8(canvas), _to_uint8(background), objects)


def shape_rings(name: str, *, inner_radius: float = 0.55) -> list[np.ndarray]:
    """Outline of a class in the unit disc: rings float64 [V, 2], filled by the even-odd rule.

    `inner_radius` is the hole of a ring, relative to the outer radius.
    """
    if name == "square":
        return [_regular(4)]
    if name == "disc":
        return [_regular(48)]
    if name == "ring":
        return [_regular(48), _regular(48) * inner_radius]
    if name == "cross":
        w = 0.4
        x = np.array([w, w, 1, 1, w, w, -w, -w, -1, -1, -w, -w])
        y = np.array([-1, -w, -w, w, w, 1, 1, w, w, -w, -w, -1])
        return [np.stack([x, y], axis=1)]
    raise KeyError(f"unknown shape {name!r}; known: {', '.join(SHAPE_NAMES)}")


def draw_background(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Gradient, several octaves of coloured noise, stripes and thin lines: float32 [H, W, 3] BGR in 0..255."""
    canvas = _gradient(rng, image_size)
    for cells in (4, 9, 20, 45, 100):
        noise = rng.normal(0.0, 1.0, (cells, cells, 3)).astype(np.float32)
        canvas += rng.uniform(3.0, 14.0) * cv2.resize(noise, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        canvas += (_stripes(rng, image_size) - 0.5)[..., None] * rng.uniform(-45, 45, 3).astype(np.float32)
    _draw_lines(canvas, _random_lines(rng, image_size, count=int(rng.integers(4, 18)), max_thickness=3))
    return np.clip(canvas, 0, 255)


def _add_objects(rng: np.random.Generator, canvas: np.ndarray, objects: list[SceneObject]) -> None:
    """Place 3 to 10 objects, some of them aimed so that they hide 20 to 60 % of an earlier one."""
    count = int(rng.integers(MIN_OBJECTS, MAX_OBJECTS + 1))
    placed: list[SceneObject] = []
    attempts = 0
    while len(placed) < count and attempts < 600:
        attempts += 1
        targets = [o for o in placed if o.hidden_fraction < FREE_HIDDEN]
        # Occluders come last on average, when there is something to hide; the first object never hides another.
        wanted = OCCLUDER_SHARE * count / max(count - 1, 1)
        target = _choose_target(rng, targets) if targets and rng.random() < wanted else None
        # Little hidden is more frequent than much, as in photographs.
        most_hidden = HIDDEN_RANGE[0] + (HIDDEN_RANGE[1] - HIDDEN_RANGE[0]) * rng.random() ** 3
        for _ in range(40):
            candidate = _propose(rng, canvas.shape[0], target)
            if _fits(candidate.full, placed, target, most_hidden):
                _paint_object(rng, canvas, candidate, objects + placed)
                placed.append(candidate)
                break
    objects.extend(placed)


def _choose_target(rng: np.random.Generator, targets: list[SceneObject]) -> SceneObject:
    """An object to hide in part: the larger its side, the more often."""
    sides = np.array([np.count_nonzero(target.full) for target in targets], dtype=np.float64) ** 0.5
    return targets[rng.choice(len(targets), p=sides / sides.sum())]


def _add_crowd(rng: np.random.Generator, canvas: np.ndarray, objects: list[SceneObject]) -> None:
    """A cluster of small equal shapes that is annotated as one crowd region."""
    image_size, label = canvas.shape[0], int(rng.integers(len(SHAPE_NAMES)))
    spread = rng.uniform(0.1, 0.2) * image_size
    centre = rng.uniform(0.3, 0.7, 2) * image_size
    crowd = np.zeros(canvas.shape[:2], dtype=bool)
    for _ in range(rng.integers(12, 26)):
        position = np.clip(centre + rng.uniform(-spread, spread, 2), 12, image_size - 12)
        mask = _rasterise(rng, label, rng.uniform(9, 16), position, image_size)
        _fill(rng, canvas, mask)
        crowd |= mask
    objects.append(SceneObject(label, crowd, crowd.copy(), is_crowd=True))


def _propose(rng: np.random.Generator, image_size: int, target: SceneObject | None) -> SceneObject:
    """A random object somewhere on the canvas, or one no larger than `target` across its edge."""
    label = int(rng.integers(len(SHAPE_NAMES)))
    size = MIN_SIZE + (MAX_SIZE - MIN_SIZE) * rng.random() ** 0.34
    position = rng.uniform(size / 2 + 2, image_size - size / 2 - 2, 2)
    if target is not None:
        ys, xs = np.nonzero(target.full)
        side = max(np.ptp(xs), np.ptp(ys)) + 1.0
        size = float(np.clip(side * rng.uniform(0.45, 1.0), MIN_SIZE, MAX_SIZE))
        pick = rng.integers(len(xs))
        reach = rng.uniform(0.0, 0.55) * size
        angle = rng.uniform(0, 2 * np.pi)
        position = np.array([xs[pick], ys[pick]]) + reach * np.array([np.cos(angle), np.sin(angle)])
        position = np.clip(position, size / 2 + 2, image_size - size / 2 - 2)
    mask = _rasterise(rng, label, size, position, image_size)
    return SceneObject(label, mask, mask.copy())


def _fits(mask: np.ndarray, placed: list[SceneObject], target: SceneObject | None, most_hidden: float) -> bool:
    """Whether painting `mask` hides 20 % to `most_hidden` of `target` and leaves every other object in its state."""
    for other in placed:
        left = int(np.count_nonzero(other.visible & ~mask))
        hidden = 1.0 - left / int(np.count_nonzero(other.full))
        if left < MIN_VISIBLE_AREA:
            return False
        occluded = other is target or other.hidden_fraction >= HIDDEN_RANGE[0]
        if occluded and not HIDDEN_RANGE[0] <= hidden <= (most_hidden if other is target else HIDDEN_RANGE[1]):
            return False
        if not occluded and hidden > FREE_HIDDEN:
            return False
    return True


def _paint_object(rng: np.random.Generator, canvas: np.ndarray, new: SceneObject, earlier: list[SceneObject]) -> None:
    _fill(rng, canvas, new.full)
    for other in earlier:
        other.visible &= ~new.full


def _rasterise(rng: np.random.Generator, label: int, size: float, position: np.ndarray, image_size: int) -> np.ndarray:
    """Mask bool [H, W] of a shape, turned and stretched at random, whose longer side measures `size` pixels."""
    rings = shape_rings(SHAPE_NAMES[label], inner_radius=rng.uniform(0.3, 0.5))
    angle = rng.uniform(0, 2 * np.pi)
    stretch = np.diag([rng.uniform(0.75, 1.0), 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rings = [ring @ stretch @ turn for ring in rings]
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    scale = (size - 1) / (high - low).max()
    points = [((ring - (low + high) / 2) * scale + position) * 2**_SUBPIXEL_BITS for ring in rings]
    mask = np.zeros((image_size, image_size), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(p).astype(np.int32) for p in points], 1, cv2.LINE_8, _SUBPIXEL_BITS)
    return mask.astype(bool)


def _fill(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray) -> None:
    """Paint `mask` on `canvas` in place with a random colour, gradient or texture that differs from what is below."""
    ys, xs = np.nonzero(mask)
    window = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    side = max(canvas[window].shape[:2])
    below = canvas[mask].mean(axis=0)
    for _ in range(8):
        paint = _paint(rng, side)[: ys.max() - ys.min() + 1, : xs.max() - xs.min() + 1]
        if np.linalg.norm(paint[mask[window]].mean(axis=0) - below) >= _MIN_CONTRAST:
            break
    canvas[window][mask[window]] = paint[mask[window]]


def _paint(rng: np.random.Generator, side: int) -> np.ndarray:
    """A square of one of four paints, float32 [side, side, 3]: plain, gradient, stripes, coloured noise."""
    kind = rng.choice(4, p=(0.25, 0.3, 0.25, 0.2))
    if kind == 0:
        return np.broadcast_to(rng.uniform(0, 255, 3).astype(np.float32), (side, side, 3))
    if kind == 1:
        return np.clip(_gradient(rng, side), 0, 255)
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    if kind == 2:
        blend = _stripes(rng, side)
    else:
        cells = int(rng.integers(3, 9))
        coarse = rng.random((cells, cells)).astype(np.float32)
        blend = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    return first + (second - first) * blend[..., None]


def _random_lines(rng: np.random.Generator, image_size: int, *, count: int, max_thickness: int) -> list[Line]:
    """Strokes of two to four points anywhere on the canvas, 1 to `max_thickness` pixels thick."""
    lines = []
    for _ in range(count):
        points = rng.uniform(0, image_size, (rng.integers(2, 5), 2)).astype(np.int32)
        colour = rng.uniform(0, 255, 3).tolist()
        lines.append((points, bool(rng.random() < 0.2), colour, int(rng.integers(1, max_thickness + 1))))
    return lines


def _draw_lines(canvas: np.ndarray, lines: list[Line]) -> None:
    for points, closed, colour, thickness in lines:
        cv2.polylines(canvas, [points], closed, colour, thickness, cv2.LINE_AA)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """Linear blend of four random corner colours, float32 [side, side, 3]."""
    corners = rng.uniform(0, 255, (2, 2, 3)).astype(np.float32)
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    rows = corners[0] * (1 - ramp) + corners[1] * ramp  # [side, 2, 3]
    across = ramp.transpose(1, 0, 2)
    return rows[:, :1] * (1 - across) + rows[:, 1:] * across


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Soft stripes or, half of the time, a chequer pattern: float32 [side, side] in 0..1."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(4.0, 24.0)
    axis = np.arange(side, dtype=np.float32)
    along = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    wave = np.sin(along * (2 * np.pi / period))
    if rng.random() < 0.5:
        crosswise = np.cos(angle) * axis[:, None] - np.sin(angle) * axis[None, :]
        wave = wave * np.sin(crosswise * (2 * np.pi / period))
    return np.clip(wave * 2, -1, 1) / 2 + 0.5


def _regular(num_vertices: int) -> np.ndarray:
    """Corners of a regular polygon on the unit circle, float64 [V, 2]."""
    angles = np.arange(num_vertices) * (2 * np.pi / num_vertices)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _to_uint8(canvas: np.ndarray) -> np.ndarray:
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)
