"""A json of any size by formula, in COCO's layout: polygons in hundredths of a pixel, some of two rings, RLE crowds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

# COCO's training set of 2017.
NUM_IMAGES, NUM_INSTANCES = 118_287, 860_001
NUM_CATEGORIES = 80
_CROWD_EVERY = 85
_TWO_RINGS_EVERY = 6
_FEWEST_VERTICES, _MOST_VERTICES = 5, 47
_CHUNK = 10_000


def write_coco_json(path: Path, *, num_images: int = NUM_IMAGES, num_instances: int = NUM_INSTANCES) -> None:
    """Write the json; the same numbers give the same file."""
    with open(path, "w") as file:
        file.writelines(_parts(num_images, num_instances))


def _parts(num_images: int, num_instances: int) -> Iterator[str]:
    heights = np.where(np.arange(num_images) % 4 == 0, 640, 480)
    ids = np.arange(num_images) * 5 + 9
    yield '{"info":{"description":"by formula","year":2017},"licenses":[{"id":1,"name":"none"}],"images":['
    yield ",".join(_image(*item) for item in zip(ids.tolist(), heights.tolist(), strict=True))
    yield '],"annotations":['
    rng = np.random.default_rng(0)
    rows = rng.integers(0, num_images, num_instances)
    for begin in range(0, num_instances, _CHUNK):
        numbers = range(begin, min(begin + _CHUNK, num_instances))
        own = rows[begin : begin + _CHUNK]
        counts = rng.integers(_FEWEST_VERTICES, _MOST_VERTICES + 1, len(own))
        columns = zip(numbers, ids[own].tolist(), heights[own].tolist(), counts.tolist(), strict=True)
        yield ("," if begin else "") + ",".join(_annotation(*item) for item in columns)
    names = (f'{{"supercategory":"thing","id":{n},"name":"thing {n}"}}' for n in range(1, NUM_CATEGORIES + 1))
    yield f'],"categories":[{",".join(names)}]}}'


def _image(image_id: int, height: int) -> str:
    return (
        f'{{"license":1,"file_name":"{image_id:012d}.jpg","coco_url":"http://images.example.org/{image_id:012d}.jpg",'
        f'"height":{height},"width":{1120 - height},"date_captured":"2013-11-14 17:02:52",'
        f'"flickr_url":"http://farm9.example.org/8186/{image_id:010d}_4e622c8349_z.jpg","id":{image_id}}}'
    )


def _annotation(number: int, image_id: int, height: int, count: int) -> str:
    x, y = 60 + number * 37 % (1000 - height), 60 + number * 53 % (height - 120)
    radius = 20 + number % 40
    if number % _CROWD_EVERY == 0:
        total, inside = height * (1120 - height), 50 + number % 500
        segmentation, is_crowd = (
            f'{{"counts":[100,{inside},{total - 100 - inside}],"size":[{height},{1120 - height}]}}',
            1,
        )
    else:
        angles = np.arange(count) * (2 * np.pi / count)
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        split = count // 2 if number % _TWO_RINGS_EVERY == 0 and count >= 6 else count
        rings = [part.ravel().tolist() for part in (points[:split], points[split:]) if len(part)]
        texts = ("[" + ",".join([f"{value:.2f}" for value in ring]) + "]" for ring in rings)
        segmentation, is_crowd = f"[{','.join(texts)}]", 0
    box = f"[{x - radius},{y - radius},{2 * radius}.5,{2 * radius}.25]"
    return (
        f'{{"segmentation":{segmentation},"area":{3.1 * radius * radius:.6f},"iscrowd":{is_crowd},'
        f'"image_id":{image_id},"bbox":{box},"category_id":{number % NUM_CATEGORIES + 1},"id":{number + 1}}}'
    )
