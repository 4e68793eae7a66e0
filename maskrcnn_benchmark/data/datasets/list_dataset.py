"""Image files without annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.base import DetectionDataset
from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.data.image_targets import ImageTargets
from maskrcnn_benchmark.data.transforms import Compose


class ListDataset(DetectionDataset):
    """Image files, for inference; no sample has objects.

    Args:
        image_lists: paths of the files.
        transforms: what happens to a sample.
    """

    def __init__(self, image_lists: Sequence[str | Path], transforms: Compose | None = None) -> None:
        super().__init__(transforms)
        self.image_lists = list(image_lists)
        self._sizes: dict[int, tuple[int, int]] = {}
        self.id_to_img_map = dict(enumerate(range(len(self.image_lists))))

    def __len__(self) -> int:
        return len(self.image_lists)

    def load_image(self, index: int) -> np.ndarray:
        """Decode image ``index``: uint8 [H, W, 3], BGR."""
        image = read_image(self.image_lists[index])
        self._sizes[index] = image.shape[:2]
        return image

    def load_targets(self, index: int) -> ImageTargets:
        """No objects, in the size of image ``index``."""
        info = self.get_img_info(index)
        return ImageTargets(
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            image_size=(info["height"], info["width"]),
        )

    def get_img_info(self, index: int) -> dict[str, Any]:
        """``height``, ``width`` and ``file_name`` of image ``index``; decodes it on first use."""
        if index not in self._sizes:
            self.load_image(index)
        height, width = self._sizes[index]
        return {"height": height, "width": width, "file_name": str(self.image_lists[index])}
