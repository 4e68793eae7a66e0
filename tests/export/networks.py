"""Small random networks of every family whose detections are many and differ, and pictures for them."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.export.program import FixedShapeDetector, InputShape
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import ImageList
from tests.modeling.test_detector import make_cfg

C4 = {
    "MODEL__BACKBONE__CONV_BODY": "R-18-C4",
    "MODEL__BACKBONE__OUT_CHANNELS": 64,
    "MODEL__RPN__USE_FPN": False,
    "MODEL__RPN__ANCHOR_STRIDE": (16,),
    "MODEL__ROI_HEADS__USE_FPN": False,
    "MODEL__ROI_BOX_HEAD__POOLER_RESOLUTION": 14,
    "MODEL__ROI_BOX_HEAD__POOLER_SCALES": (0.0625,),
    "MODEL__ROI_BOX_HEAD__POOLER_SAMPLING_RATIO": 0,
    "MODEL__ROI_BOX_HEAD__FEATURE_EXTRACTOR": "ResNet50Conv5ROIFeatureExtractor",
    "MODEL__ROI_BOX_HEAD__PREDICTOR": "FastRCNNPredictor",
    "MODEL__ROI_MASK_HEAD__FEATURE_EXTRACTOR": "ResNet50Conv5ROIFeatureExtractor",
    "MODEL__ROI_MASK_HEAD__PREDICTOR": "MaskRCNNC4Predictor",
    "MODEL__ROI_MASK_HEAD__POOLER_RESOLUTION": 14,
    "MODEL__ROI_MASK_HEAD__POOLER_SCALES": (0.0625,),
    "MODEL__ROI_MASK_HEAD__POOLER_SAMPLING_RATIO": 0,
    "MODEL__ROI_MASK_HEAD__RESOLUTION": 14,
    "MODEL__ROI_MASK_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": True,
}
FAMILIES = {
    "mask": {},
    "faster": {"MODEL__MASK_ON": False},
    "agnostic": {"MODEL__MASK_ON": False, "MODEL__CLS_AGNOSTIC_BBOX_REG": True},
    "c4": C4,
    "retinanet": {
        "MODEL__RETINANET_ON": True,
        "MODEL__RPN_ONLY": True,
        "MODEL__MASK_ON": False,
        "MODEL__BACKBONE__CONV_BODY": "R-18-FPN-RETINANET",
        "MODEL__RETINANET__NUM_CLASSES": 4,
        "MODEL__RETINANET__NUM_CONVS": 2,
        "TEST__DETECTIONS_PER_IMG": 20,
    },
    "keypoint": {
        "MODEL__MASK_ON": False,
        "MODEL__KEYPOINT_ON": True,
        "MODEL__ROI_BOX_HEAD__NUM_CLASSES": 2,
        "MODEL__ROI_KEYPOINT_HEAD__FEATURE_EXTRACTOR": "KeypointRCNNFeatureExtractor",
        "MODEL__ROI_KEYPOINT_HEAD__POOLER_RESOLUTION": 14,
        "MODEL__ROI_KEYPOINT_HEAD__POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
        "MODEL__ROI_KEYPOINT_HEAD__POOLER_SAMPLING_RATIO": 2,
        "MODEL__ROI_KEYPOINT_HEAD__CONV_LAYERS": (16, 16),
        "MODEL__ROI_KEYPOINT_HEAD__SHARE_BOX_FEATURE_EXTRACTOR": False,
    },
    "rpn": {"MODEL__MASK_ON": False, "MODEL__RPN_ONLY": True},
    "group_norm": {"MODEL__FPN__USE_GN": True, "MODEL__ROI_BOX_HEAD__USE_GN": True, "MODEL__GROUP_NORM__NUM_GROUPS": 8},
    "dcn": {
        "MODEL__BACKBONE__CONV_BODY": "R-50-FPN",
        "MODEL__RESNETS__TRANS_FUNC": "DeformableBottleneckWithFixedBatchNorm",
        "MODEL__RESNETS__STAGE_WITH_DCN": (False, False, False, True),
        "MODEL__RESNETS__WITH_MODULATED_DCN": True,
        "MODEL__MASK_ON": False,
    },
}
SHAPE = InputShape(batch=2, height=96, width=128)


def make_network(family: str, **changes: object) -> torch.nn.Module:
    """A random network whose scores and boxes depend on the picture, so that detections are many and distinct."""
    torch.manual_seed(0)
    model = build_detection_model(make_cfg(**(FAMILIES[family] | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_score.weight", "rpn.head.cls_logits.weight")):
                parameter.normal_(std=0.3)
            elif name.endswith(("conv_offset.weight", "offset.weight")):
                parameter.normal_(std=0.05)
            elif family == "retinanet" and name.endswith("cls_logits.bias"):
                parameter.fill_(-2.0)
            elif family == "retinanet" and name.endswith(("cls_tower.0.weight", "cls_tower.2.weight", "logits.weight")):
                parameter.normal_(std=0.05)
    return model


def make_detector(family: str, **changes: object) -> FixedShapeDetector:
    """The same as a function of pixels."""
    mean, std = torch.tensor([103.0, 116.0, 123.0]), torch.tensor([57.0, 57.5, 58.0])
    return FixedShapeDetector(make_network(family, **changes), mean=mean, std=std)


def make_inputs(shape: InputShape = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    """Coloured shapes with noise, and sizes of which one is smaller than the canvas."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand((shape.batch, 3, 6, 8), generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=(shape.height, shape.width), mode="nearest")
    images = (images + torch.rand(images.shape, generator=generator) * 20).clamp(max=255).to(torch.uint8)
    sizes = torch.tensor([[shape.height, shape.width], [shape.height - 7, shape.width - 30]])[: shape.batch]
    return images, sizes


def published_detections(detector: FixedShapeDetector, images: torch.Tensor, sizes: torch.Tensor) -> list:
    """What the network's own way, through BoxLists, finds in the same pictures."""
    normalised = torch.zeros(images.shape)
    for image, pixels, (height, width) in zip(normalised, images.float(), sizes.tolist(), strict=True):
        inside = pixels[:, :height, :width] - detector.mean[:, None, None]
        image[:, :height, :width] = inside / detector.std[:, None, None]
    with torch.no_grad():
        return detector.model(ImageList(normalised, [tuple(size) for size in sizes.tolist()]))
