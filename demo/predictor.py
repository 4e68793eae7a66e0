"""The published place of COCODemo, for programs and notebooks that import it from here."""

from maskrcnn_benchmark.apps.coco_demo import COCODemo

__all__ = ["COCODemo"]
