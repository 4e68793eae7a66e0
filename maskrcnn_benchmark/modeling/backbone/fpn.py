"""Feature pyramid network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class LastLevelMaxPool(nn.Module):
    """One more, coarser level: every second pixel of the last one."""

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """Return [p5 at half the resolution]; c5 is the input that the coarsest level came from."""
        return [F.max_pool2d(p5, 1, 2, 0)]


class LastLevelP6P7(nn.Module):
    """Two more, coarser levels by 3x3 convolutions with stride 2. Source: Lin et al., Focal Loss (2017), section 4.

    Args:
        in_channels: of the map that the first one starts from.
        out_channels: of both levels.
        use_c5: start from the input of the pyramid (as in the paper), not from its coarsest output.
    """

    def __init__(self, in_channels: int, out_channels: int, *, use_c5: bool = True) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        self.use_c5 = use_c5
        for layer in (self.p6, self.p7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        """Return [p6, p7], each [N, out_channels, H, W] at half the resolution of the one before."""
        p6 = self.p6(c5 if self.use_c5 else p5)
        return [p6, self.p7(F.relu(p6))]


class FPN(nn.Module):
    """Top-down pyramid with lateral connections. Source: Lin et al., Feature Pyramid Networks (2017), section 3.

    Args:
        in_channels_list: channels of the input maps, finest first; 0 leaves a map out.
        out_channels: channels of every output map.
        conv_block: conv_block(in_channels, out_channels, kernel_size) builds a lateral or output layer.
        top_blocks: makes further levels from the coarsest input and output.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        conv_block: Callable[[int, int, int], nn.Module],
        top_blocks: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.levels = [i for i, channels in enumerate(in_channels_list, 1) if channels > 0]
        for i in self.levels:
            self.add_module(f"fpn_inner{i}", conv_block(in_channels_list[i - 1], out_channels, 1))
            self.add_module(f"fpn_layer{i}", conv_block(out_channels, out_channels, 3))
        self.top_blocks = top_blocks

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
        if self.top_blocks is not None:
            results.extend(self.top_blocks(x[-1], results[-1]))
        return tuple(results)
