"""Checks that backbone and region heads fit one another; part of ``validate``."""

from __future__ import annotations

from collections.abc import Iterator

from yacs.config import CfgNode

RES5 = "ResNet50Conv5ROIFeatureExtractor"
VECTORS = ("FPN2MLPFeatureExtractor", "FPNXconv1fcFeatureExtractor")  # what they give are no maps
DILATED = {"ROI_BOX_HEAD": "FPNXconv1fcFeatureExtractor", "ROI_MASK_HEAD": "MaskRCNNFPNFeatureExtractor"}
ENLARGED = {"MaskRCNNC4Predictor": 2, "MaskRCNNConv1x1Predictor": 1}  # side of the masks by that of the features
POOLER_KEYS = ("POOLER_RESOLUTION", "POOLER_SCALES", "POOLER_SAMPLING_RATIO")


def check_heads(cfg: CfgNode) -> None:
    """Check the maps of a C4 or C5 backbone, and the region heads if there are any.

    Raises:
        ValueError: with the key, its value and what to set.
    """
    stride = _stride_of_single_map(cfg)
    rpn = cfg.MODEL.RPN
    if stride is not None:
        name = cfg.MODEL.BACKBONE.CONV_BODY
        if rpn.USE_FPN:
            raise ValueError(f"MODEL.RPN.USE_FPN must be False with the backbone {name}, which gives one map")
        if tuple(rpn.ANCHOR_STRIDE) != (stride,):
            raise ValueError(
                f"MODEL.RPN.ANCHOR_STRIDE is {rpn.ANCHOR_STRIDE}, but the map of {name} has the stride {stride}; "
                f"set it to ({stride},)"
            )
    if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON:
        return
    for head in _heads_with_extractor(cfg):
        scales = cfg.MODEL[head].POOLER_SCALES
        if stride is not None and tuple(scales) != (1 / stride,):
            raise ValueError(
                f"MODEL.{head}.POOLER_SCALES is {scales}, but the only map of {cfg.MODEL.BACKBONE.CONV_BODY} has the "
                f"stride {stride}; set it to ({1 / stride},)"
            )
    _check_box_predictor(cfg)
    _check_dilation(cfg)
    if cfg.MODEL.MASK_ON:
        _check_mask_head(cfg)


def check_masks_for_pasting(cfg: CfgNode) -> None:
    """Raise ValueError when the model would paste masks that its caller is about to paste."""
    if cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS:
        raise ValueError(
            "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS is True, which is for programs that call the model themselves: "
            "testing and prediction paste the masks into the images as they are on disk; set it to False"
        )


def _stride_of_single_map(cfg: CfgNode) -> int | None:
    """The stride of the map that a C4 or C5 backbone gives; None for others."""
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name.endswith("-C5"):
        return 32 if cfg.MODEL.RESNETS.RES5_DILATION == 1 else 16
    return 16 if name.endswith("-C4") else None


def _heads_with_extractor(cfg: CfgNode) -> Iterator[str]:
    """The sections of the heads that pool for themselves."""
    yield "ROI_BOX_HEAD"
    for name in ("MASK", "KEYPOINT"):
        if cfg.MODEL[f"{name}_ON"] and not cfg.MODEL[f"ROI_{name}_HEAD"].SHARE_BOX_FEATURE_EXTRACTOR:
            yield f"ROI_{name}_HEAD"


def _check_box_predictor(cfg: CfgNode) -> None:
    extractor, predictor = cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR, cfg.MODEL.ROI_BOX_HEAD.PREDICTOR
    for wanted, extractors in (("FastRCNNPredictor", (RES5,)), ("FPNPredictor", VECTORS)):
        if extractor in extractors and predictor != wanted and predictor in ("FastRCNNPredictor", "FPNPredictor"):
            raise ValueError(
                f"MODEL.ROI_BOX_HEAD.PREDICTOR is {predictor}, which does not take what {extractor} gives; "
                f"set it to {wanted}"
            )


def _check_dilation(cfg: CfgNode) -> None:
    """The heads' DILATION belongs to one extractor each."""
    for head in _heads_with_extractor(cfg):
        section = cfg.MODEL[head]
        known = {RES5, *VECTORS, *DILATED.values()} - {DILATED.get(head)}
        if section.get("DILATION", 1) != 1 and section.FEATURE_EXTRACTOR in known:
            instead = "; MODEL.RESNETS.RES5_DILATION dilates res5" if section.FEATURE_EXTRACTOR == RES5 else ""
            raise ValueError(
                f"MODEL.{head}.DILATION is {section.DILATION}, which {section.FEATURE_EXTRACTOR} does not use; "
                f"set it to 1{instead}"
            )


def _check_mask_head(cfg: CfgNode) -> None:
    """Check the side of the masks, and that nothing is asked of a shared extractor in vain."""
    box, mask = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    shares = mask.SHARE_BOX_FEATURE_EXTRACTOR
    for key in POOLER_KEYS if shares else ():
        if mask[key] != box[key]:
            raise ValueError(
                f"MODEL.ROI_MASK_HEAD.{key} is {mask[key]}, but its SHARE_BOX_FEATURE_EXTRACTOR takes the regions that "
                f"the box head pools with MODEL.ROI_BOX_HEAD.{key} {box[key]}; set both to one value"
            )
    extractor = (box if shares else mask).FEATURE_EXTRACTOR
    side = mask.POOLER_RESOLUTION
    if extractor == RES5 and cfg.MODEL.RESNETS.RES5_DILATION == 1:
        side = (side + 1) // 2
    side *= ENLARGED.get(mask.PREDICTOR, 1)
    known = mask.PREDICTOR in ENLARGED and extractor in (RES5, "MaskRCNNFPNFeatureExtractor")
    if known and side != mask.RESOLUTION:
        raise ValueError(
            f"MODEL.ROI_MASK_HEAD.RESOLUTION is {mask.RESOLUTION}, but {mask.PREDICTOR} on {extractor} gives masks of "
            f"{side} from its POOLER_RESOLUTION {mask.POOLER_RESOLUTION}; set RESOLUTION to {side}"
        )
