"""The formulas behind the golden files: weights, images and ground truth of the figures that they hold."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parent.parent / "configs"
PIXEL_MEAN = np.array([102.9801, 115.9465, 122.7717], np.float32)
FIXED_SAMPLING = [
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 1000000, "MODEL.RPN.POSITIVE_FRACTION", 1.0),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 1000000, "MODEL.ROI_HEADS.POSITIVE_FRACTION", 1.0),
]


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        value = 1 + 0.2 * rng.rand(*shape)
    elif leaf == "running_mean":
        value = 0.1 * rng.randn(*shape)
    elif leaf == "bias":
        value = 0.02 * rng.randn(*shape)
    elif len(shape) == 1:
        value = (0.8 + 0.4 * rng.rand(*shape)) * (0.2 if ".bn3." in name else 1)
    else:
        gain = math.sqrt(2.0 / (shape[0] if "conv5_mask" in name else math.prod(shape[1:])))
        for part, factor in (("stem", 1 / 60), ("fpn_", 0.5), ("bbox_pred", 0.15), ("cls_logits", 0.5)):
            gain *= factor if part in name else 1
        value = gain * rng.randn(*shape)
    return torch.from_numpy(np.asarray(value, np.float32))


def load_weights(model: nn.Module) -> None:
    state = model.state_dict()
    model.load_state_dict(
        {
            name: value if "anchor" in name or not value.is_floating_point() else weight(name, tuple(value.shape))
            for name, value in state.items()
        }
    )


def make_cfg(golden: np.lib.npyio.NpzFile, extra: list[object] | None = None):
    opts = [int(o) if o.isdigit() else o for o in golden["opts"].tolist()]
    cfg = default_cfg.clone()
    cfg.merge_from_file(str(CONFIGS / str(golden["config"])))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WINOGRAD", False, *opts, *(extra or [])])
    return cfg


def make_images(golden: np.lib.npyio.NpzFile, num_classes: int) -> list[Tensor]:
    rng = np.random.RandomState(int(golden["seed"]))
    images = []
    for i, (h, w) in enumerate(golden["sizes"].tolist()):
        low = rng.randint(0, 256, (h // 16 + 2, w // 16 + 2, 3)).astype(np.float32)
        image = np.repeat(np.repeat(low, 16, 0), 16, 1)[:h, :w] + rng.randint(-20, 21, (h, w, 3)).astype(np.float32)
        image = torch.from_numpy((image - PIXEL_MEAN).transpose(2, 0, 1).copy())
        assert zlib.crc32(image.numpy().tobytes()) == int(golden[f"image{i}_crc"])
        images.append(image)
        for _ in range(int(golden["ngt"])):  # the ground truth's draws, so that the next image starts right
            rng.uniform(20, w * 0.6), rng.uniform(20, h * 0.6), rng.uniform(0, 1), rng.uniform(0, 1)
            count = rng.randint(5, 12)
            rng.uniform(0, 1, count), rng.uniform(0, 1, count), rng.randint(1, num_classes)
    return images


def make_targets(golden: np.lib.npyio.NpzFile) -> list[BoxList]:
    targets = []
    for i, (h, w) in enumerate(golden["sizes"].tolist()):
        target = BoxList(torch.from_numpy(golden[f"gt{i}_boxes"]), (w, h), "xyxy")
        target.add_field("labels", torch.from_numpy(golden[f"gt{i}_labels"]))
        cuts = np.cumsum(golden[f"gt{i}_poly_lens"])[:-1]
        polygons = [[ring.tolist()] for ring in np.split(golden[f"gt{i}_polys"], cuts)]
        target.add_field("masks", SegmentationMask(polygons, (w, h), mode="poly"))
        targets.append(target)
    return targets
