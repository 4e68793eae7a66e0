"""Checks on a whole config, before anything is built: each fault is one sentence with the key and the remedy."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import custom_entries
from maskrcnn_benchmark.config.check_heads import check_heads, check_masks_for_pasting
from maskrcnn_benchmark.config.check_sizes import check_sizes
from maskrcnn_benchmark.config.classes import class_count, class_count_key
from maskrcnn_benchmark.config.defaults import _C
from maskrcnn_benchmark.config.node import ALIASES

DTYPES = ("float32", "float16", "bfloat16", "tf32")
WARMUP_METHODS = ("constant", "linear", "mlperf_linear")
LOADERS = ("auto", "workers", "dali", "nvjpeg")
BROKEN_IMAGES = ("stop", "skip")
NONFINITE = ("stop", "skip")
PREFETCH = ("auto", "always", "never")  # no "on" and "off", which YAML takes for truth values
CAPTURES = ("eager", "cuda_graphs", "compile")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
FUSED_SGD = ("torch", "apex")
ENGINES = ("fast", "pycocotools")
BACKENDS = ("dllogger", "jsonl", "tensorboard", "mlflow", "clearml", "neptune", "wandb")  # of TRACKING
MAX_SHAPES = 8  # torch.compile's limit for one function
COCO_KEYPOINTS = 17  # of a person; their sigmas are known


def validate(cfg: CfgNode, *, world_size: int = 1, training: bool = True, testing: bool = True) -> None:
    """Check what the config says as a whole.

    Args:
        cfg: the merged config.
        world_size: number of processes.
        training: check what only training uses. testing: check what only testing uses.

    Raises:
        ValueError: with the key, its value and what to set.
    """
    _check_aliases(cfg)
    check_sizes(cfg)
    _check_device(cfg)
    _check_network(cfg)
    _check_data(cfg)
    _check_tracking(cfg)
    if training:
        _check_batch("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, world_size)
        _check_schedule(cfg)
        _check_capture(cfg)
    if any(cfg.MODEL.RESNETS.STAGE_WITH_DCN):
        _check_deformable(cfg)
    if cfg.MODEL.KEYPOINT_ON:
        _check_keypoints(cfg, testing=testing)
    if testing:
        _check_batch("TEST.IMS_PER_BATCH", cfg.TEST.IMS_PER_BATCH, world_size)
        check_masks_for_pasting(cfg)
        _require(cfg.TEST.COCO_ENGINE in ENGINES, cfg, "TEST.COCO_ENGINE", f"one of {', '.join(ENGINES)}")
        _require(cfg.TEST.MAX_TIME >= 0, cfg, "TEST.MAX_TIME", "0 or more, in hours")
        for key in ("TEST.BOOTSTRAP", "TEST.WARM_UP"):
            _require(_get(cfg, key) >= 0, cfg, key, "0 or more")
        if cfg.TEST.BBOX_AUG.ENABLED:
            _check_augmentation(cfg)


def _get(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _require(fits: bool, cfg: CfgNode, key: str, needed: str) -> None:
    """Raise ValueError with the key and its value unless it fits."""
    if not fits:
        raise ValueError(f"{key} must be {needed}, but is {_get(cfg, key)!r}")


def _check_aliases(cfg: CfgNode) -> None:
    """Find a value that was assigned, not merged, under the second of two names: only the first is read."""
    for first, second in ALIASES:
        if _get(cfg, second) not in (_get(cfg, first), _get(_C, second)):
            raise ValueError(
                f"{first} ({_get(cfg, first)}) and {second} ({_get(cfg, second)}) are two names of one value "
                f"and must not differ; set {first} only"
            )


def _check_device(cfg: CfgNode) -> None:
    """Check MODEL.DEVICE and DTYPE against this machine."""
    import torch  # here, so that tools that only read a config start without it

    try:
        device_type = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError:
        device_type = ""
    _require(device_type != "", cfg, "MODEL.DEVICE", "a device such as 'cuda' or 'cpu'")
    if device_type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but this machine has no usable CUDA device; set MODEL.DEVICE cpu"
        )
    _require(cfg.DTYPE in DTYPES, cfg, "DTYPE", f"one of {', '.join(DTYPES)}")
    _require(cfg.CPU_THREADS >= 0, cfg, "CPU_THREADS", "0 or more")
    _require(cfg.PROCESS_TIMEOUT > 0, cfg, "PROCESS_TIMEOUT", "above 0, in seconds")


def _check_network(cfg: CfgNode) -> None:
    """Check that the parts of the network fit one another."""
    rpn, heads = cfg.MODEL.RPN, cfg.MODEL.ROI_HEADS
    known = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    _require(known, cfg, "MODEL.META_ARCHITECTURE", "'GeneralizedRCNN'")
    _require(class_count(cfg) >= 2, cfg, class_count_key(cfg), "at least 2 (one class and the background)")
    if cfg.MODEL.RETINANET_ON:
        _check_retinanet(cfg)
    for key, section in (("MODEL.RPN", rpn), ("MODEL.ROI_HEADS", heads)):
        _check_thresholds(cfg, key)
        in_range = 0 < section.POSITIVE_FRACTION <= 1
        _require(in_range, cfg, f"{key}.POSITIVE_FRACTION", "above 0 and at most 1")
        _require(section.BATCH_SIZE_PER_IMAGE > 0, cfg, f"{key}.BATCH_SIZE_PER_IMAGE", "at least 1")
    if rpn.USE_FPN:
        one_size_a_level = len(rpn.ANCHOR_SIZES) == len(rpn.ANCHOR_STRIDE)
        _require(one_size_a_level, cfg, "MODEL.RPN.ANCHOR_SIZES", f"one for each of ANCHOR_STRIDE {rpn.ANCHOR_STRIDE}")
    else:
        _require(
            len(rpn.ANCHOR_STRIDE) == 1, cfg, "MODEL.RPN.ANCHOR_STRIDE", "one stride unless MODEL.RPN.USE_FPN True"
        )
    if cfg.MODEL.BACKBONE.CONV_BODY.endswith(("-FPN", "-FPN-RETINANET")):
        fits = rpn.USE_FPN or cfg.MODEL.RETINANET_ON
        _require(fits, cfg, "MODEL.RPN.USE_FPN", f"True with the backbone {cfg.MODEL.BACKBONE.CONV_BODY}")
        # the coarsest stride that is upsampled
        divisor = max(cfg.MODEL.RETINANET.ANCHOR_STRIDES[:3] if cfg.MODEL.RETINANET_ON else rpn.ANCHOR_STRIDE[:4])
        fits = cfg.DATALOADER.SIZE_DIVISIBILITY > 0 and cfg.DATALOADER.SIZE_DIVISIBILITY % divisor == 0
        _require(fits, cfg, "DATALOADER.SIZE_DIVISIBILITY", f"a multiple of {divisor} with a feature pyramid")
    check_heads(cfg)


def _check_keypoints(cfg: CfgNode, *, testing: bool) -> None:
    """Check MODEL.ROI_KEYPOINT_HEAD and how keypoints are evaluated."""
    head, sigmas = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.TEST.KEYPOINT_OKS_SIGMAS
    published = (head.FEATURE_EXTRACTOR, head.PREDICTOR) == ("KeypointRCNNFeatureExtractor", "KeypointRCNNPredictor")
    if published and not head.SHARE_BOX_FEATURE_EXTRACTOR:
        fits = head.RESOLUTION == 4 * head.POOLER_RESOLUTION
        needed = f"four times its POOLER_RESOLUTION ({head.POOLER_RESOLUTION})"
        _require(fits, cfg, "MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", needed)
    if testing:
        fits = (len(sigmas) or COCO_KEYPOINTS) == head.NUM_CLASSES and all(sigma > 0 for sigma in sigmas)
        needed = f"one positive number for each of MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES ({head.NUM_CLASSES}) keypoints"
        _require(fits, cfg, "TEST.KEYPOINT_OKS_SIGMAS", f"{needed}, such as 0.05")


def _check_augmentation(cfg: CfgNode) -> None:
    """Check TEST.BBOX_AUG."""
    for key in ("MODEL.RPN_ONLY", "MODEL.RETINANET_ON"):
        if _get(cfg, key):
            raise ValueError(
                f"TEST.BBOX_AUG.ENABLED is True, but {key} is True too, and only boxes of a box head can be pooled; "
                "set TEST.BBOX_AUG.ENABLED to False"
            )
    positive = all(type(size) is int and size > 0 for size in cfg.TEST.BBOX_AUG.SCALES)
    _require(positive, cfg, "TEST.BBOX_AUG.SCALES", "lengths of the shorter side in pixels")


def _check_thresholds(cfg: CfgNode, section: str) -> None:
    """Check the IoU thresholds of MODEL.RPN and its like."""
    low, high = _get(cfg, section).BG_IOU_THRESHOLD, _get(cfg, section).FG_IOU_THRESHOLD
    needed = f"between BG_IOU_THRESHOLD ({low}) and 1, both at least 0"
    _require(0 <= low <= high <= 1, cfg, f"{section}.FG_IOU_THRESHOLD", needed)


def _check_retinanet(cfg: CfgNode) -> None:
    """Check the section MODEL.RETINANET, and what does not go with it."""
    retinanet, key = cfg.MODEL.RETINANET, "MODEL.RETINANET"
    for mode in ("MASK_ON", "KEYPOINT_ON"):
        _require(not cfg.MODEL[mode], cfg, f"MODEL.{mode}", "False with MODEL.RETINANET_ON, which detects boxes only")
    fits = not cfg.MODEL.BACKBONE.CONV_BODY.endswith(("-FPN", "-C4", "-C5"))
    _require(fits, cfg, "MODEL.BACKBONE.CONV_BODY", "one with the levels of RetinaNet, such as R-50-FPN-RETINANET")
    _check_thresholds(cfg, key)
    fits = len(retinanet.ANCHOR_SIZES) == len(retinanet.ANCHOR_STRIDES) == 5
    _require(fits, cfg, f"{key}.ANCHOR_SIZES", f"one for each of the 5 ANCHOR_STRIDES {retinanet.ANCHOR_STRIDES}")
    _require(0 < retinanet.PRIOR_PROB < 1, cfg, f"{key}.PRIOR_PROB", "between 0 and 1")
    _require(retinanet.SCALES_PER_OCTAVE >= 1, cfg, f"{key}.SCALES_PER_OCTAVE", "at least 1")
    _require(retinanet.PRE_NMS_TOP_N >= 1, cfg, f"{key}.PRE_NMS_TOP_N", "at least 1")
    _require(retinanet.LOSS_GAMMA >= 0, cfg, f"{key}.LOSS_GAMMA", "0 or more")
    _require(retinanet.BBOX_REG_BETA > 0, cfg, f"{key}.BBOX_REG_BETA", "above 0")
    _require(cfg.TEST.DETECTIONS_PER_IMG >= 0, cfg, "TEST.DETECTIONS_PER_IMG", "0 (no limit) or more")


def _check_deformable(cfg: CfgNode) -> None:
    """Check that the stages with deformable convolution have bottlenecks that divide into the groups."""
    resnets, key = cfg.MODEL.RESNETS, "MODEL.RESNETS.STAGE_WITH_DCN"
    bottlenecks = resnets.TRANS_FUNC.startswith("Bottleneck")
    _require(bottlenecks, cfg, key, f"all False with {resnets.TRANS_FUNC}: only bottlenecks convolve deformably")
    width = resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 2 ** list(resnets.STAGE_WITH_DCN).index(True)
    divides = resnets.DEFORMABLE_GROUPS > 0 and width % resnets.DEFORMABLE_GROUPS == 0
    needed = f"a divisor of {width}, the width of the first stage with deformable convolution"
    _require(divides, cfg, "MODEL.RESNETS.DEFORMABLE_GROUPS", needed)


def _check_data(cfg: CfgNode) -> None:
    """Check the sections INPUT, DATASETS and DATALOADER."""
    custom_entries(cfg)
    names = cfg.DATASETS.CLASSES
    fits = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    _require(fits, cfg, "DATASETS.CLASSES", "names of classes, each once")
    for key in ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"):
        value = _get(cfg, key)
        sizes = value if isinstance(value, tuple) else (value,)
        _require(bool(sizes) and all(type(v) is int and v > 0 for v in sizes), cfg, key, "positive, in pixels")
    _require(len(cfg.INPUT.PIXEL_MEAN) == 3, cfg, "INPUT.PIXEL_MEAN", "three numbers")
    _require(len(cfg.INPUT.PIXEL_STD) == 3 and all(cfg.INPUT.PIXEL_STD), cfg, "INPUT.PIXEL_STD", "three numbers, not 0")
    _require(cfg.DATALOADER.BACKEND in LOADERS, cfg, "DATALOADER.BACKEND", f"one of {', '.join(LOADERS)}")
    _require(cfg.DATALOADER.NUM_WORKERS >= 0, cfg, "DATALOADER.NUM_WORKERS", "0 or more")
    _require(cfg.DATALOADER.PREFETCH in PREFETCH, cfg, "DATALOADER.PREFETCH", f"one of {', '.join(PREFETCH)}")
    fits = cfg.DATALOADER.BROKEN_IMAGES in BROKEN_IMAGES
    _require(fits, cfg, "DATALOADER.BROKEN_IMAGES", f"one of {', '.join(BROKEN_IMAGES)}")
    _require(cfg.DATALOADER.TIMEOUT >= 0, cfg, "DATALOADER.TIMEOUT", "0 or more, in seconds")
    step = max(cfg.DATALOADER.SIZE_DIVISIBILITY, 1)
    shapes = cfg.INPUT.SHAPE_BUCKETS
    fits = len(shapes) <= MAX_SHAPES and all(_is_shape(shape, step) for shape in shapes)
    needed = f"at most {MAX_SHAPES} pairs (height, width) of multiples of DATALOADER.SIZE_DIVISIBILITY ({step})"
    _require(fits, cfg, "INPUT.SHAPE_BUCKETS", needed)


def _check_tracking(cfg: CfgNode) -> None:
    """Check the section TRACKING."""
    names = cfg.TRACKING.BACKENDS
    fits = set(names) <= set(BACKENDS) and len(set(names)) == len(names)
    _require(fits, cfg, "TRACKING.BACKENDS", f"some of {', '.join(BACKENDS)}, each once")
    _require(cfg.TRACKING.PROJECT != "", cfg, "TRACKING.PROJECT", "a name")
    for key in ("PROJECT", "EXPERIMENT", "NAME"):
        if "://" in cfg.TRACKING[key]:  # not shown: it may hold a password
            raise ValueError(f"TRACKING.{key} is an address; it must be a name, addresses come from the environment")
    _require(all(isinstance(tag, str) and tag for tag in cfg.TRACKING.TAGS), cfg, "TRACKING.TAGS", "words")
    _require(cfg.TRACKING.TIMEOUT >= 0, cfg, "TRACKING.TIMEOUT", "0 or more, in seconds")


def _is_shape(value: Any, step: int) -> bool:
    """Whether value is a pair of positive multiples of step."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(type(length) is int and length > 0 and length % step == 0 for length in value)


def _check_capture(cfg: CfgNode) -> None:
    """Check MODEL.CAPTURE against device and shapes."""
    capture = cfg.MODEL.CAPTURE
    _require(capture in CAPTURES, cfg, "MODEL.CAPTURE", f"one of {', '.join(CAPTURES)}")
    if capture == "cuda_graphs" and not cfg.MODEL.DEVICE.startswith("cuda"):
        raise ValueError(
            f"MODEL.CAPTURE is 'cuda_graphs', which needs CUDA, but MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; "
            "set MODEL.CAPTURE to compile or eager"
        )
    if capture != "eager" and not cfg.INPUT.SHAPE_BUCKETS:
        raise ValueError(
            f"MODEL.CAPTURE is {capture!r}, but INPUT.SHAPE_BUCKETS names no shape to capture; "
            "set it, for example to ((800, 1344), (1344, 800)), or set MODEL.CAPTURE to eager"
        )


def _check_batch(key: str, images: int, world_size: int) -> None:
    """Check that a batch can be divided among the processes."""
    if images < 1 or images % world_size:
        below = max(images // world_size, 1) * world_size
        choice = f"{below} or {below + world_size}" if images > world_size else f"{below}"
        scaled = ", or SOLVER.SCALE_TO_WORLD True" if images > 0 else ""
        raise ValueError(
            f"{key} is {images}, which cannot be divided among {world_size} process(es); set {key} to {choice}{scaled}"
        )


def _check_schedule(cfg: CfgNode) -> None:
    """Check the section SOLVER."""
    solver = cfg.SOLVER
    steps = list(solver.STEPS)
    rising = all(isinstance(s, (int, float)) for s in steps) and steps == sorted(set(steps))
    _require(rising, cfg, "SOLVER.STEPS", "iterations in ascending order")
    _require(solver.WARMUP_METHOD in WARMUP_METHODS, cfg, "SOLVER.WARMUP_METHOD", f"one of {', '.join(WARMUP_METHODS)}")
    _require(solver.OPTIMIZER in OPTIMIZERS, cfg, "SOLVER.OPTIMIZER", f"one of {', '.join(OPTIMIZERS)}")
    fits = len(solver.BETAS) == 2 and all(isinstance(beta, float) and 0 <= beta < 1 for beta in solver.BETAS)
    _require(fits, cfg, "SOLVER.BETAS", "two numbers from 0 to below 1")
    _require(solver.FUSED_SGD in FUSED_SGD, cfg, "SOLVER.FUSED_SGD", f"one of {', '.join(FUSED_SGD)}")
    _require(solver.NONFINITE in NONFINITE, cfg, "SOLVER.NONFINITE", f"one of {', '.join(NONFINITE)}")
    for name in ("MAX_ITER", "CHECKPOINT_PERIOD", "ACCUMULATE_STEPS", "LOG_PERIOD", "NONFINITE_LIMIT"):
        _require(solver[name] >= 1, cfg, f"SOLVER.{name}", "at least 1")
    for name in ("WARMUP_ITERS", "MAX_GRAD_NORM", "WEIGHT_DECAY", "MOMENTUM", "TEST_PERIOD", "CHECKPOINT_KEEP",
                 "MAX_TIME_FIT_AFTER"):  # fmt: skip
        _require(solver[name] >= 0, cfg, f"SOLVER.{name}", "0 or more")
    _require(solver.MAX_TIME >= 0, cfg, "SOLVER.MAX_TIME", "0 or more, in hours")
    _require(solver.BASE_LR > 0, cfg, "SOLVER.BASE_LR", "above 0")
