"""Tasks that take seconds: settings for a small network, as a user of YMIR would type them."""

from __future__ import annotations

from tests.apps.tiny_run import OPTIONS

CONFIG = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
_OWN = ("MODEL.DEVICE", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "REPORT")  # the executor's to choose
_SCHEDULE = ("SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR")
NETWORK = {name: value for name, value in OPTIONS.items() if name not in (*_OWN, *_SCHEDULE, "SOLVER.STEPS")}


def cfg_options(**further: object) -> str:
    """The text of the key cfg_options: the small network, and further keys with __ for their dots."""
    keys = NETWORK | {name.replace("__", "."): value for name, value in further.items()}
    return " ".join(f"{name} {str(value).replace(' ', '')}" for name, value in keys.items())


def training(max_iter: int = 4, **settings: object) -> dict[str, object]:
    """Settings of a training; some are text, as YMIR's form sends them."""
    return {
        "config_file": CONFIG, "batch_size_per_gpu": "2", "num_workers_per_gpu": 0, "max_iter": max_iter,
        "learning_rate": "0.005", "val_interval": 2, "max_keep_checkpoints": 1, "cfg_options": cfg_options(),
        "export_onnx": "False", "opset": 18, "ymir_saved_file_patterns": "",
    } | settings  # fmt: skip


def mining(**settings: object) -> dict[str, object]:
    """Settings of mining and inference; a threshold that an untrained network's detections pass."""
    return {"mining_algorithm": "entropy", "conf_threshold": "0.05", "batch_size_per_gpu": 2, "num_workers_per_gpu": 0,
            "class_distribution_scores": "", "cfg_options": ""} | settings  # fmt: skip
