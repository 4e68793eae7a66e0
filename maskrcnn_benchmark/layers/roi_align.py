"""ROIAlign as a function and as a module."""

from __future__ import annotations

from torch import Tensor, nn

from maskrcnn_benchmark import ops


def roi_align(
    input: Tensor,  # [N, C, H, W]
    rois: Tensor,  # [R, 5] batch index, x1, y1, x2, y2
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Pool each box of one feature map to [R, C, ph, pw] by bilinear sampling, without the half-pixel shift.

    Source: He et al., Mask R-CNN (2017), section 3. The autograd-aware op is `maskrcnn_benchmark.ops.roi_align`.
    """
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    return ops.roi_align([input], rois, output_size=size, spatial_scales=[spatial_scale], sampling_ratio=sampling_ratio)


class ROIAlign(nn.Module):
    """Module form of `roi_align`.

    Args:
        output_size: (height, width) of a pooled box.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0 adapts to the size of the box.
        is_nhwc: accepted for published signatures; the layout is read from the tensor's memory format.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        is_nhwc: bool | None = None,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool rois [R, 5] from input [N, C, H, W]."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in print(module)."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )
