"""How each peer does what an op of ours on masks, pixels and losses does; see `benchmarks/_op_peers.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks._op_peers import Size, Work


def torchvision_mask_targets(rings: Tensor, boxes: Tensor, resolution: int, image_size: Size) -> Work:
    """Crops of ground truth bitmaps, which its datasets hand over ready."""
    from pycocotools import mask as coco_mask
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    encoded = coco_mask.frPyObjects([ring.flatten().tolist() for ring in rings], *image_size)
    bitmaps = torch.from_numpy(coco_mask.decode(encoded)).permute(2, 0, 1).contiguous().to(boxes.device)
    indices = torch.arange(len(boxes), device=boxes.device)
    return lambda: project_masks_on_boxes(bitmaps, boxes, indices, resolution)


def detectron2_mask_targets(rings: Tensor, boxes: Tensor, resolution: int) -> Work:
    """Crops of polygons, with pycocotools."""
    from detectron2.structures import PolygonMasks

    polygons = PolygonMasks([[ring.flatten().double().cpu().numpy()] for ring in rings])
    return lambda: polygons.crop_and_resize(boxes, resolution)


def torchvision_paste(masks: Tensor, boxes: Tensor, image_size: Size) -> Work:
    """Bitmaps [R, h, w] bool."""
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    return lambda: paste_masks_in_image(masks[:, None], boxes, image_size)[:, 0] > 0.5


def detectron2_paste(masks: Tensor, boxes: Tensor, image_size: Size) -> Work:
    """Bitmaps [R, h, w] bool."""
    from detectron2.layers.mask_ops import paste_masks_in_image

    return lambda: paste_masks_in_image(masks, boxes, image_size, 0.5)


def encode_with_pycocotools(paste: Work) -> Work:
    """COCO's run lengths of what ``paste`` gives."""
    from pycocotools import mask as coco_mask

    return lambda: [coco_mask.encode(np.asfortranarray(bitmap.numpy().view(np.uint8))) for bitmap in paste()]


def _batch(images: Sequence[Tensor], like: Tensor) -> Tensor:
    height, width = (-(-max(image.shape[axis] for image in images) // 32) * 32 for axis in (1, 2))
    batch = like.new_zeros(len(images), 3, height, width)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]].copy_(image)
    return batch


def torchvision_normalize(images: Sequence[Tensor], mean: Tensor) -> Work:
    """Its normalize of each image, and a padded batch."""
    from torchvision.transforms.v2.functional import normalize

    means, deviations = mean.tolist(), [1.0] * 3
    return lambda: _batch([normalize(image.float(), means, deviations) for image in images], mean)


def detectron2_normalize(images: Sequence[Tensor], mean: Tensor) -> Work:
    """Its preprocessing of a batch."""
    from detectron2.structures import ImageList

    column, deviations = mean[:, None, None], torch.ones_like(mean)[:, None, None]
    return lambda: ImageList.from_tensors([(image - column) / deviations for image in images], 32).tensor


def _one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    rows = torch.nn.functional.one_hot(targets, logits.shape[1] + 1)
    return rows[:, 1:].to(logits.dtype)


def torchvision_focal_loss(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Work:
    """The sum over classes given as numbers."""
    from torchvision.ops import sigmoid_focal_loss

    return lambda: sigmoid_focal_loss(logits, _one_hot(logits, targets), alpha, gamma, "sum")


def torchvision_focal_loss_grad(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Work:
    """The gradient of a sum that is at hand with its graph."""
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = torchvision_focal_loss(leaf, targets, gamma, alpha)()
    return lambda: torch.autograd.grad(loss, leaf, retain_graph=True)
