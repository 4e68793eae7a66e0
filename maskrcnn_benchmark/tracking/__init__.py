"""Where the figures of a run go."""

from maskrcnn_benchmark.tracking.dllogger import DLLoggerSink
from maskrcnn_benchmark.tracking.json_lines import JsonLinesSink
from maskrcnn_benchmark.tracking.mlperf import MlperfSink
from maskrcnn_benchmark.tracking.sink import MetricSink, SinkGroup
from maskrcnn_benchmark.tracking.tensorboard import TensorBoardSink

__all__ = ["DLLoggerSink", "JsonLinesSink", "MetricSink", "MlperfSink", "SinkGroup", "TensorBoardSink"]
