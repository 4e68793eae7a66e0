"""What a run does about images that cannot be read: it goes on, in a way that can be repeated, and tells which."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.config.validate import BROKEN_IMAGES
from maskrcnn_benchmark.data.keyed import SampleKey, keyed_bits
from maskrcnn_benchmark.utils import comm

if TYPE_CHECKING:
    from maskrcnn_benchmark.data.datasets.base import DetectionDataset

logger = logging.getLogger(__name__)

_ATTEMPTS = 64
_SALT = 0x62726F6B  # sets these draws apart from those of the transforms
_MOST_NAMES = 20  # in one line of the log


class BrokenImages:
    """Puts something in the place of images that cannot be read, and counts them.

    In training that is another sample of the data set, of the same orientation where there is one, as it looks in this
    epoch. Which one depends on (seed, epoch, index) and the files, never on workers, processes or where a run was
    resumed. In testing it is a black picture of the same size, so that every image is there; the detections on it do
    not count.

    Args:
        length: of the data set.
        seed: of the run.
        replaces: training; False: testing.
    """

    def __init__(self, length: int, *, seed: int, replaces: bool) -> None:
        self.seed = seed
        self.replaces = replaces
        self._counts = torch.zeros(length, dtype=torch.int32).share_memory_()  # the workers of a process have one

    def read(self, dataset: DetectionDataset, key: SampleKey) -> tuple[np.ndarray, SampleKey]:
        """The picture of a sample uint8 [H, W, 3], or what stands in for it, and the key of the sample that it is.

        Raises:
            ValueError: when 64 others cannot be read either.
        """
        first = self._try(dataset, key)
        if isinstance(first, np.ndarray):
            return first, key
        if not self.replaces:
            info = dataset.get_img_info(key.index)
            return np.zeros((info["height"], info["width"], 3), dtype=np.uint8), key
        for index in self._others(dataset, key):
            image = self._try(dataset, SampleKey(key.epoch, index))
            if isinstance(image, np.ndarray):
                return image, SampleKey(key.epoch, index)
        raise ValueError(f"{first}; {_ATTEMPTS} images chosen in its place cannot be read either, so the run stops")

    def _try(self, dataset: DetectionDataset, key: SampleKey) -> np.ndarray | Exception:
        try:
            return dataset.load_image(key.index)
        except (OSError, ValueError) as error:
            self._counts[key.index] += 1
            if self._counts[key.index] == 1:
                logger.warning("%s. %s", error, "Another takes its place" if self.replaces else "It shows nothing")
            return error

    def _others(self, dataset: DetectionDataset, key: SampleKey) -> Iterator[int]:
        draws = keyed_bits(self.seed, *key, _SALT, count=_ATTEMPTS) % np.uint64(len(dataset))
        wanted = _is_upright(dataset.get_img_info(key.index))
        # Batches hold images of one orientation, and may be padded to a shape that the other does not fit.
        return iter(sorted(draws.tolist(), key=lambda index: _is_upright(dataset.get_img_info(index)) != wanted))

    def is_broken(self, index: int) -> bool:
        """Whether the image of sample ``index`` could not be read since the last report."""
        return bool(self._counts[index])

    def take_counts(self) -> dict[int, int]:
        """How often each image could not be read, by data set index, since the last call."""
        indices = self._counts.nonzero().flatten().tolist()
        counts = {index: int(self._counts[index]) for index in indices}
        self._counts[indices] = 0
        return counts

    def report(self, dataset: Any) -> None:
        """Log the images that could not be read since the last report; every process of the run has to call it."""
        total: dict[str, int] = {}
        for counts in comm.all_gather({_name(dataset, index): n for index, n in self.take_counts().items()}):
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
        if total and comm.is_main_process():
            names = sorted(total)
            listed = ", ".join(names[:_MOST_NAMES])
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            if self.replaces:
                what = f"and others took their place {sum(total.values())} times"
            else:
                what = "and count as images without detections"
            logger.warning("%d images could not be read, %s: %s%s", len(names), what, listed, more)


def _is_upright(info: dict[str, Any]) -> bool:
    return info["height"] >= info["width"]


def _name(dataset: Any, index: int) -> str:
    return str(dataset.get_img_info(index)["file_name"])


def make_broken_images(cfg: CfgNode, length: int, *, is_train: bool) -> BrokenImages | None:
    """What DATALOADER.BROKEN_IMAGES asks for; None: the first image that cannot be read stops the run.

    Args:
        cfg: reads DATALOADER.BROKEN_IMAGES and SEED.
        length: of the data set.
        is_train: replace such images; otherwise they stay without detections.

    Raises:
        ValueError: DATALOADER.BROKEN_IMAGES is none of its values.
    """
    choice = cfg.DATALOADER.BROKEN_IMAGES
    if choice not in BROKEN_IMAGES:
        raise ValueError(f"DATALOADER.BROKEN_IMAGES must be one of {', '.join(BROKEN_IMAGES)}, got {choice!r}")
    return None if choice == "stop" else BrokenImages(length, seed=cfg.SEED, replaces=is_train)


def report_broken_images(dataset: Any) -> None:
    """`BrokenImages.report` for a data set that has one; every process of the run has to call it."""
    broken = getattr(dataset, "broken_images", None)
    if broken is not None:
        broken.report(dataset)
