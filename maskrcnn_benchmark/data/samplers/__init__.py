"""Which samples, in which order: every order is a function of (seed, epoch), so a run can resume at any iteration."""

from __future__ import annotations

from maskrcnn_benchmark.data.samplers.distributed import DistributedSampler
from maskrcnn_benchmark.data.samplers.grouped_batch_sampler import GroupedBatchSampler
from maskrcnn_benchmark.data.samplers.iteration_based_batch_sampler import IterationBasedBatchSampler
from maskrcnn_benchmark.data.samplers.keyed_batch_sampler import KeyedBatchSampler
from maskrcnn_benchmark.data.samplers.left_over import LeftOver, samples_left

__all__ = [
    "DistributedSampler",
    "GroupedBatchSampler",
    "IterationBasedBatchSampler",
    "KeyedBatchSampler",
    "LeftOver",
    "samples_left",
]
