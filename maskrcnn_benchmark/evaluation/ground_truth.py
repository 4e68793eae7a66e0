"""The annotated objects of a COCO-format data set as arrays. Letters: I images, K categories, G objects."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from pycocotools.coco import COCO

from maskrcnn_benchmark.ops import rasterize_polygons
from maskrcnn_benchmark.utils.collection import no_collection

from .columns import Masks

_MIN_COORDS = 6  # of a ring; pycocotools takes four numbers for a box


@dataclass(frozen=True)
class GroundTruth:
    """Objects of the evaluated images and categories, in the order of categories, then images, then the file.

    Attributes:
        image_ids: [I], ascending.
        category_ids: int64 [K], ascending.
        images: int64 [G], place in `image_ids`.
        categories: int64 [G], place in `category_ids`.
        areas: float64 [G], annotated, in square pixels.
        is_crowd: bool [G].
        is_nameless: bool [G], annotation id 0, which pycocotools takes for no match.
        boxes: float64 [G, 4] as x, y, width, height; where asked for.
        masks: where asked for.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray
    is_nameless: np.ndarray
    boxes: np.ndarray | None = None
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def from_coco(
        cls, coco: COCO, iou_type: str, *, image_ids: Iterable[Any], category_ids: Iterable[int]
    ) -> GroundTruth:
        """Take over the annotations of some images and categories.

        Args:
            coco: the ground truth.
            iou_type: "bbox" or "segm".
            image_ids, category_ids: which count.

        Raises:
            ValueError: an object lacks what is evaluated.
        """
        images, categories = np.unique(np.array([*image_ids])), np.unique(np.array([*category_ids], dtype=np.int64))
        wanted, places = set(categories.tolist()), {image_id: place for place, image_id in enumerate(images.tolist())}
        # By way of the ids, as pycocotools goes: of two annotations with one id the last stands for both.
        found = (
            coco.anns[annotation["id"]]
            for image_id in places
            for annotation in coco.imgToAnns.get(image_id, ())
            if annotation["category_id"] in wanted
        )
        annotations = [a for a in found if a["image_id"] in places and a["category_id"] in wanted]
        own_images = np.array([places[a["image_id"]] for a in annotations], dtype=np.int64)
        own_categories = np.searchsorted(categories, np.array([a["category_id"] for a in annotations], dtype=np.int64))
        order = np.lexsort((own_images, own_categories))
        annotations = [annotations[index] for index in order.tolist()]
        own_images, own_categories = own_images[order], own_categories[order]
        try:
            areas = np.array([a["area"] for a in annotations], dtype=np.float64)
            boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64) if iou_type == "bbox" else None
            masks = _masks(coco, annotations) if iou_type == "segm" else None
        except KeyError as error:
            raise ValueError(f"an annotation has no {error}, which the evaluation of {iou_type} needs") from error
        return cls(
            image_ids=images,
            category_ids=categories,
            images=own_images,
            categories=own_categories,
            areas=areas,
            is_crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
            is_nameless=np.array([a["id"] == 0 for a in annotations], dtype=bool),
            boxes=boxes.reshape(-1, 4) if boxes is not None else None,
            masks=masks,
        )


def read_coco(path: str | os.PathLike[str]) -> COCO:
    """An annotation file as pycocotools' object, by a faster parser and without lines on stdout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    coco = COCO()
    with no_collection(), contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = orjson.loads(Path(path).read_bytes())
        coco.createIndex()
    return coco


def _masks(coco: COCO, annotations: Sequence[dict[str, Any]]) -> Masks:
    """The mask of each annotation; polygons are filled together."""
    texts: list[bytes] = [b""] * len(annotations)
    infos = [coco.imgs[annotation["image_id"]] for annotation in annotations]
    sizes = [(info["height"], info["width"]) for info in infos]
    polygons = []
    for index, annotation in enumerate(annotations):
        shape = annotation["segmentation"]
        if isinstance(shape, list) and shape and all(len(ring) >= _MIN_COORDS and len(ring) % 2 == 0 for ring in shape):
            polygons.append(index)
        else:
            rle = coco.annToRLE(annotation)
            counts = rle["counts"]
            texts[index] = counts.encode("ascii") if isinstance(counts, str) else counts
            sizes[index] = tuple(rle["size"])
    for index, text in zip(polygons, _fill(annotations, sizes, polygons), strict=True):
        texts[index] = text
    return Masks.pack(texts, sizes)


def _fill(
    annotations: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int]], polygons: Sequence[int]
) -> Iterable[bytes]:
    rings = [ring for index in polygons for ring in annotations[index]["segmentation"]]
    lengths = np.fromiter(map(len, rings), np.int64, len(rings)) // 2
    coords = np.fromiter(chain.from_iterable(rings), np.float64, 2 * int(lengths.sum())).reshape(-1, 2)
    counts = [len(annotations[index]["segmentation"]) for index in polygons]
    extents = np.array([sizes[index] for index in polygons], dtype=np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], lengths.cumsum()]), np.cumsum([0, *counts])
    text, bounds = rasterize_polygons(*map(torch.from_numpy, (coords, *offsets, extents)))
    whole, ends = text.numpy().tobytes(), bounds.tolist()
    return (whole[a:b] for a, b in pairwise(ends))
