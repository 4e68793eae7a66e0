"""ROI max pooling as a function and as a module."""

from __future__ import annotations

from torch import Tensor, nn

from maskrcnn_benchmark import ops


def roi_pool(
    input: Tensor,  # [N, C, H, W]
    rois: Tensor,  # [R, 5] batch index, x1, y1, x2, y2
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> Tensor:
    """Max-pool each box of one feature map to [R, C, ph, pw]. Source: Girshick, Fast R-CNN (2015), section 2.1."""
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    return ops.roi_pool(input, rois, output_size=size, spatial_scale=spatial_scale)


class ROIPool(nn.Module):
    """Module form of `roi_pool`.

    Args:
        output_size: (height, width) of a pooled box.
        spatial_scale: feature pixels per image pixel.
    """

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool rois [R, 5] from input [N, C, H, W]."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in print(module)."""
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
