"""Feature pyramid network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class LastLevelMaxPool(nn.Module):
    """One more, coarser level: every second pixel of the last one."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return [x at half the resolution]."""
        return [F.max_pool2d(x, 1, 2, 0)]


class FPN(nn.Module):
    """Top-down pyramid with lateral connections. Source: Lin et al., Feature Pyramid Networks (2017), section 3.

    Args:
        in_channels_list: channels of the input maps, finest first; 0 leaves a map out.
        out_channels: channels of every output map.
        conv_block: conv_block(in_channels, out_channels, kernel_size) builds a lateral or output layer.
        top_block: makes further levels from the coarsest output.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        conv_block: Callable[[int, int, int], nn.Module],
        top_block: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.levels = [i for i, channels in enumerate(in_channels_list, 1) if channels > 0]
        for i in self.levels:
            self.add_module(f"fpn_inner{i}", conv_block(in_channels_list[i - 1], out_channels, 1))
            self.add_module(f"fpn_layer{i}", conv_block(out_channels, out_channels, 3))
        self.top_block = top_block

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the pyramid [N, out_channels, H_l, W_l], finest first, from the stage outputs, finest first."""
        results: list[Tensor] = []
        top_down = None
        for i in reversed(self.levels):
            inner = self.get_submodule(f"fpn_inner{i}")(x[i - 1])
            if top_down is not None:
                inner = inner + F.interpolate(top_down, size=inner.shape[-2:], mode="nearest")
            top_down = inner
            results.insert(0, self.get_submodule(f"fpn_layer{i}")(inner))
        if self.top_block is not None:
            results.extend(self.top_block(results[-1]))
        return tuple(results)
