"""FBNet and ChamNet: networks of inverted residual blocks for trunk, RPN head and region heads.

Sources: Wu et al., FBNet (2019); Dai et al., ChamNet (2019); Sandler et al., MobileNetV2 (2018). The registries import
this room when a config asks for one of its names.
"""

from maskrcnn_benchmark.modeling.backbone.fbnet.body import FBNetTrunk
from maskrcnn_benchmark.modeling.backbone.fbnet.heads import FBNetROIHead, FBNetRPNHead

__all__ = ["FBNetROIHead", "FBNetRPNHead", "FBNetTrunk"]
