"""Packed files whose checksums are right and whose arrays are made to lead a reader astray."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets.coco_json import pack_coco_json
from maskrcnn_benchmark.data.datasets.packed.arrays import PackedAnnotations, PackedCoords, PackedStrings
from maskrcnn_benchmark.data.datasets.packed.file import load_packed, save_packed
from tests.data.tiny_coco import write_tiny_coco


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedAnnotations:
    return pack_coco_json(write_tiny_coco(tmp_path_factory.mktemp("tiny")).ann_file)


def with_last(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[-1] = value
    return array


FAULTS = {
    "offsets beyond the end": ("ring_offsets", lambda array: with_last(array, 10**12)),
    "offsets that fall": ("annotation_offsets", lambda array: np.concatenate([array[:1], array[:0:-1]])),
    "offsets below zero": ("polygon_offsets", lambda array: array - 1),
    "fewer offsets than images": ("annotation_offsets", lambda array: array[:-1]),
    "labels of no class": ("labels", lambda array: with_last(array, 99)),
    "a label 0": ("labels", lambda array: with_last(array, 0)),
    "a picture without a size": ("image_sizes", lambda array: with_last(array, 0)),
    "a box of no numbers": ("boxes", lambda array: with_last(array, np.nan)),
    "boxes of another type": ("boxes", lambda array: array.astype(np.float64)),
    "boxes in one row": ("boxes", lambda array: array.reshape(-1)),
    "fewer areas than objects": ("areas", lambda array: array[:-1]),
    "a name beyond the text": ("file_names", lambda names: PackedStrings(names.data, with_last(names.offsets, 10**9))),
    "vertices apart from none": (
        "coords",
        lambda own: PackedCoords(own.codes, own.scale, np.array([10**9]), np.zeros((1, 2), np.float32)),
    ),
    "a scale of zero": ("coords", lambda own: dataclasses.replace(own, scale=np.zeros(1, np.int64))),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_arrays_that_do_not_fit_are_refused(packed: PackedAnnotations, tmp_path: Path, what: str) -> None:
    name, change = FAULTS[what]
    path = tmp_path / "a.packed"
    save_packed(dataclasses.replace(packed, **{name: change(getattr(packed, name))}), path)
    with pytest.raises(ValueError, match=r"a\.packed is damaged: it has "):
        load_packed(path)


def test_bytes_that_are_no_text_are_shown_as_such(packed: PackedAnnotations, tmp_path: Path) -> None:
    names = PackedStrings(np.full_like(packed.category_names.data, 0xFF), packed.category_names.offsets)
    save_packed(dataclasses.replace(packed, category_names=names), tmp_path / "a.packed")
    assert load_packed(tmp_path / "a.packed").category_names[0] == "\ufffd" * 4


def test_sound_arrays_pass(packed: PackedAnnotations, tmp_path: Path) -> None:
    save_packed(packed, tmp_path / "a.packed")
    assert (load_packed(tmp_path / "a.packed").labels == packed.labels).all()
