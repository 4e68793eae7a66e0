"""Optimiser and learning-rate schedule."""

from maskrcnn_benchmark.solver.build import make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.solver.lr_scheduler import WarmupMultiStepLR
from maskrcnn_benchmark.solver.state import load_optimizer_state

__all__ = ["WarmupMultiStepLR", "load_optimizer_state", "make_lr_scheduler", "make_optimizer"]
