"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.base import DetectionDataset, RawSample
from maskrcnn_benchmark.data.datasets.image_ids import ImageIds, IndexMap
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey


class ConcatDataset(DetectionDataset):
    """Data sets one after the other. Each keeps its own transforms.

    Args:
        datasets: one or more data sets, of any formats, with the same categories by name in the same order.

    Raises:
        ValueError: when there is none, or their categories or keypoints differ: the same label or place would then mean
            different things.
    """

    def __init__(self, datasets: Sequence[DetectionDataset]) -> None:
        super().__init__(None)
        if not datasets:
            raise ValueError("a ConcatDataset needs at least one data set")
        self.datasets = list(datasets)
        first = self.datasets[0]
        for position, other in enumerate(self.datasets[1:], start=2):
            if other.categories != first.categories:  # ids may differ: formats number the same names in their ways
                ids, other_ids = (list(d.contiguous_category_id_to_json_id.values()) for d in (first, other))
                raise ValueError(
                    "data sets that are trained together must list the same categories in the same order, but the "
                    f"first has {first.categories} with ids {ids} and number {position} has {other.categories} "
                    f"with ids {other_ids}"
                )
        self.categories = first.categories
        self.contiguous_category_id_to_json_id = first.contiguous_category_id_to_json_id
        self.has_masks = all(dataset.has_masks for dataset in self.datasets)
        self.has_keypoints = all(dataset.has_keypoints for dataset in self.datasets)
        if self.has_keypoints:
            self.keypoint_names = first.keypoint_names
            others = {dataset.keypoint_names for dataset in self.datasets} - {first.keypoint_names}
            if others:
                raise ValueError(
                    "data sets that are trained together must have the same keypoints in the same order, "
                    f"but one has {first.keypoint_names} and another {others.pop()}"
                )
        self.cumulative_sizes = np.cumsum([len(dataset) for dataset in self.datasets]).tolist()

    @property
    def id_to_img_map(self) -> Mapping[int, Any]:
        """Index to the image id in its own data set."""
        return IndexMap(ImageIds(np.arange(len(self), dtype=np.int32), self._image_ids))

    def _image_ids(self, indices: np.ndarray) -> list[Any]:
        places = (self.get_idxs(index) for index in indices.tolist())
        return [self.datasets[number].id_to_img_map[local] for number, local in places]

    def get_idxs(self, index: int) -> tuple[int, int]:
        """(number of the data set, index in it) of sample ``index``."""
        number = int(np.searchsorted(self.cumulative_sizes, index, side="right"))
        return number, index - (self.cumulative_sizes[number - 1] if number else 0)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, key: int | SampleKey) -> RawSample | tuple[Any, Any, int]:
        if isinstance(key, SampleKey):
            if self.broken_images is not None:
                return self.make_sample(*self.broken_images.read(self, key))
            number, local = self.get_idxs(key.index)
            image, targets, _ = self.datasets[number][SampleKey(key.epoch, local)]
            return image, targets, key.index
        if not -len(self) <= key < len(self):
            raise IndexError(f"index {key} is out of range for a data set of {len(self)} images")
        number, local = self.get_idxs(key % len(self))
        image, targets, _ = self.datasets[number][local]
        return image, targets, key % len(self)

    def make_sample(self, image: np.ndarray, key: SampleKey) -> RawSample:
        """What the loader gets of a sample whose picture has been read."""
        number, local = self.get_idxs(key.index)
        image, targets, _ = self.datasets[number].make_sample(image, SampleKey(key.epoch, local))
        return image, targets, key.index

    def defer_images(self) -> None:
        """Let each data set hold a `PendingImage` where it can."""
        if type(self) is ConcatDataset:
            for dataset in self.datasets:
                dataset.defer_images()

    def load_image(self, index: int) -> np.ndarray:
        """Decode image ``index``: uint8 [H, W, 3], BGR."""
        number, local = self.get_idxs(index)
        return self.datasets[number].load_image(local)

    def load_targets(self, index: int) -> ImageTargets:
        """The objects of image ``index`` in its own pixels."""
        number, local = self.get_idxs(index)
        return self.datasets[number].load_targets(local)

    def get_img_info(self, index: int) -> dict[str, Any]:
        """What the member data set knows of image ``index``."""
        number, local = self.get_idxs(index)
        return self.datasets[number].get_img_info(local)

    def aspect_ratios(self) -> np.ndarray:
        """Height / width of every image, float64 [len(self)]."""
        return np.concatenate([dataset.aspect_ratios() for dataset in self.datasets])
