"""What all data sets share: the two doors through which samples leave, and the questions they answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from maskrcnn_benchmark.data.broken_images import BrokenImages
from maskrcnn_benchmark.data.collate_batch import pack_targets
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.keyed import SampleKey
from maskrcnn_benchmark.data.transforms import Compose, PendingImage
from maskrcnn_benchmark.structures.bounding_box import BoxList

# Pixels uint8 [H, W, 3] in BGR, now or later, objects, index: the collator turns many of these into one batch.
RawSample = tuple[np.ndarray | PendingImage, ImageTargets, int]


class DetectionDataset(Dataset, ABC):
    """Images with objects.

    ``dataset[index]`` is the published face: (input tensor float32 [3, H, W], BoxList with the field ``labels`` and,
    where there are such, ``masks`` and ``keypoints``, index). ``dataset[SampleKey(epoch, index)]`` is the loader's:
    (pixels as they are after resize and flip, :class:`ImageTargets`, index), from which the collator writes a whole
    batch at once; see also `defer_images`.

    Args:
        transforms: what happens to a sample; None leaves image (uint8 [H, W, 3], BGR) and objects as they are.

    Attributes:
        categories: names of the categories; label k is categories[k - 1].
        contiguous_category_id_to_json_id: label 1 .. K to the data set's own category id.
        id_to_img_map: index to the data set's own image id.
        has_masks: whether the objects have polygons.
        evaluation: whose figures are computed of predictions: "coco", "voc" or "cityscapes".
        has_keypoints: whether the objects have keypoints.
        keypoint_names: names of the P keypoints, if there are any.
        broken_images: stands in for images that the loader cannot read; None: these are errors.
        defers_images: see `defer_images`.
    """

    categories: tuple[str, ...] = ()
    contiguous_category_id_to_json_id: Mapping[int, int] = {}
    id_to_img_map: Mapping[int, Any] = {}
    has_masks: bool = False
    evaluation: str = "coco"
    has_keypoints: bool = False
    keypoint_names: tuple[str, ...] = ()
    broken_images: BrokenImages | None = None
    defers_images: bool = False

    def __init__(self, transforms: Compose | None = None) -> None:
        self.transforms = transforms

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load_image(self, index: int) -> np.ndarray:
        """Decode image ``index``: uint8 [H, W, 3], BGR."""

    def image_path(self, index: int) -> Path:
        """The file that `load_image` reads, where it does nothing else; a class that defines one defines both.

        With it the image may be decoded elsewhere, for example on a GPU.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which file an image comes from")

    def begin_image(self, index: int) -> Callable[[], np.ndarray]:
        """Read the file of image ``index``; what is returned decodes it, to what `load_image` gives.

        A class that defines one defines both. The image has the size that `load_targets` gives.
        """
        raise NotImplementedError(f"{type(self).__name__} does not read and decode its images apart")

    @abstractmethod
    def load_targets(self, index: int) -> ImageTargets:
        """The objects of image ``index`` in its own pixels."""

    @abstractmethod
    def get_img_info(self, index: int) -> dict[str, Any]:
        """``height``, ``width`` and what else is known of image ``index``, without decoding it."""

    def aspect_ratios(self) -> np.ndarray:
        """Height / width of every image, float64 [len(self)]."""
        infos = (self.get_img_info(index) for index in range(len(self)))
        return np.array([info["height"] / info["width"] for info in infos], dtype=np.float64)

    def make_sample(self, image: np.ndarray, key: SampleKey) -> RawSample:
        """What the loader gets of a sample whose picture has been read."""
        targets = self.load_targets(key.index)
        if self.transforms is not None:
            image, targets = self.transforms.transform_pixels(image, targets, key)
        return image, targets, key.index

    def defer_images(self) -> None:
        """Let ``dataset[SampleKey]`` hold a `PendingImage` where it can, which the collator makes in its batch.

        It is for the loader, which has such a collator. Images that a step, a method or a class of the user's own looks
        at are made before, and so are those that others may have to stand in for.
        """
        own, usual = type(self), DetectionDataset
        makes_as_usual = own.__getitem__ is usual.__getitem__ and own.make_sample is usual.make_sample
        self.defers_images = makes_as_usual and defines_together(own, "load_image", "begin_image")

    @overload
    def __getitem__(self, key: SampleKey) -> RawSample: ...

    @overload
    def __getitem__(self, key: int) -> tuple[Tensor, BoxList, int]: ...

    def __getitem__(self, key: int | SampleKey) -> RawSample | tuple[Tensor | np.ndarray, BoxList, int]:
        if isinstance(key, SampleKey):
            if self.broken_images is not None:
                return self.make_sample(*self.broken_images.read(self, key))
            if self.defers_images and isinstance(self.transforms, Compose) and self.transforms.only_moves:
                decode = self.begin_image(key.index)
                targets, mirrored = self.transforms.transform_targets(self.load_targets(key.index), key)
                return PendingImage(decode, targets.image_size, mirrored), targets, key.index
            return self.make_sample(self.load_image(key.index), key)
        if not -len(self) <= key < len(self):
            raise IndexError(f"index {key} is out of range for a data set of {len(self)} images")
        index = key % len(self)
        image, targets = self.load_image(index), self.load_targets(index)
        if self.transforms is not None:
            image, targets = self.transforms(image, targets, SampleKey(0, index))
        return image, pack_targets([targets])[0], index


def defines_together(cls: type, *names: str) -> bool:
    """Whether methods that belong together come from one class among the bases of ``cls``."""
    return len({next(base for base in cls.__mro__ if name in vars(base)) for name in names}) == 1
