"""What a data set is, in a few words that change when it does."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.datasets.concat_dataset import ConcatDataset
from maskrcnn_benchmark.data.datasets.packed.digest import digest_packed
from maskrcnn_benchmark.data.datasets.packed_dataset import PackedDataset

NUM_SAMPLED = 16  # images whose files are read


def describe_datasets(dataset: Any) -> list[dict[str, Any]]:
    """An entry for each data set that a loader joins; see `describe_dataset`."""
    return [describe_dataset(each) for each in (dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset])]


def describe_dataset(dataset: DetectionDataset) -> dict[str, Any]:
    """Numbers and digests of one data set.

    Returns:
        ``images``: how many; ``selection``: sha256 of their ids in their order; ``annotations``: sha256 of everything
        the annotations say, names and sizes of the images in pixels included, None for a class of one's own;
        ``sampled_images``: sha256 of the bytes of NUM_SAMPLED image files spread over the set, None where they cannot
        be read as files. The pixels of the other images are not covered: reading them all would take as long as an
        epoch.
    """
    facts: dict[str, Any] = {"images": len(dataset), "annotations": None, "selection": None}
    if isinstance(dataset, PackedDataset):
        facts["annotations"] = digest_packed(dataset.packed)
        facts["selection"] = _digest("\n".join(map(str, dataset.ids)).encode())
    facts["sampled_images"] = _digest_sample(dataset)
    return facts


def _digest_sample(dataset: DetectionDataset) -> str | None:
    if not len(dataset):
        return None
    places = np.unique(np.linspace(0, len(dataset) - 1, NUM_SAMPLED).round().astype(int)).tolist()
    try:
        return _digest(*(dataset.image_path(index).read_bytes() for index in places))
    except (OSError, NotImplementedError, AttributeError):
        return None  # a missing image is the loader's to tell of


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
