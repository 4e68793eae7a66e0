"""A network and a loader with the interface of the real ones, small enough to count by hand."""

from __future__ import annotations

import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint import DetectronCheckpointer
from maskrcnn_benchmark.solver import WarmupMultiStepLR
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList


class TinyDetector(nn.Module):
    """Two losses in training, one box an image otherwise. ``noise`` draws from torch's default generator."""

    def __init__(self, *, noise=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.noise = noise

    def forward(self, images, targets=None):
        features = self.layer(images.tensors.mean((2, 3)))
        if not self.training:
            return [
                BoxList(row.detach().float().repeat(2)[None], (w, h))
                for row, (h, w) in zip(features, images.image_sizes, strict=True)
            ]
        wanted = targets.values + self.noise * torch.randn(len(features), device=features.device)
        return {
            "loss_one": (features[:, 0] - wanted).square().mean(),
            "loss_two": features[:, 1].abs().mean(),
        }


class TinyTargets:
    def __init__(self, values):
        self.values = values

    def to(self, device, non_blocking=False):
        return TinyTargets(self.values.to(device))


class TinyDataset:
    def __init__(self, size):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(size, 3, 4, 4, generator=generator)
        self.values = torch.randn(size, generator=generator)
        self.id_to_img_map = {index: 1000 + index for index in range(size)}

    def __len__(self):
        return len(self.images)

    def batch(self, indices):
        picked = torch.tensor(indices)
        sizes = [(4, 4)] * len(indices)
        return ImageList(self.images[picked], sizes), TinyTargets(self.values[picked]), tuple(indices)


class TinyLoader:
    """Batches of ``batch_size`` in order, round and round, from the batch after ``start_iter`` to ``length``."""

    def __init__(self, length, *, batch_size=2, start_iter=0, size=8, offset=0, stride=1):
        self.dataset = TinyDataset(size)
        self.length = length
        self.batch_size = batch_size
        self.start_iter = start_iter
        self.offset = offset
        self.stride = stride

    def __len__(self):
        return self.length

    def __iter__(self):
        for iteration in range(self.start_iter, self.length):
            first = iteration * self.batch_size * self.stride + self.offset * self.batch_size
            yield self.dataset.batch([(first + i) % len(self.dataset) for i in range(self.batch_size)])


def make_run(folder, *, noise=0.0, lr=0.05):
    """(model, optimizer, scheduler, checkpointer), before anything is loaded."""
    model = TinyDetector(noise=noise)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = WarmupMultiStepLR(optimizer, (6,), warmup_iters=3)
    checkpointer = DetectronCheckpointer(
        CfgNode({"SEED": 0}), model, optimizer, scheduler, str(folder), save_to_disk=True
    )
    return model, optimizer, scheduler, checkpointer


class RecordingSink:
    """Keeps what it is given."""

    def __init__(self):
        self.rows = []
        self.units = {}

    def metadata(self, metric, metadata):
        self.units[metric] = metadata["unit"]

    def log(self, step, data, *, text=None):
        self.rows.append((tuple(step), dict(data), dict(text or {})))

    def close(self):
        pass
