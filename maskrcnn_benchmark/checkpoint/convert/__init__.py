"""Weights that other programs wrote, under the names and in the layout of this one.

A converted name is a suffix of the model's name, long enough to fit one place only: what is shared, such as the last
stage of a C4 network, is found under several.
"""

from maskrcnn_benchmark.checkpoint.convert.caffe2 import from_caffe2
from maskrcnn_benchmark.checkpoint.convert.detectron2 import from_detectron2, is_detectron2
from maskrcnn_benchmark.checkpoint.convert.torchvision import from_torchvision, is_torchvision

__all__ = ["from_caffe2", "from_detectron2", "from_torchvision", "is_detectron2", "is_torchvision"]
