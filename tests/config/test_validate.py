"""Each fault of a config ends in one sentence that names the key and what to set."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.config import cfg as global_cfg
from maskrcnn_benchmark.config import validate


@pytest.fixture
def cfg(repository):
    cfg = global_cfg.clone()
    cfg.merge_from_file(repository / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_the_published_job_is_sound(cfg, world_size):
    validate(cfg, world_size=world_size)


@pytest.mark.parametrize(
    ("overrides", "world_size", "message"),
    [
        (
            {"SOLVER.IMS_PER_BATCH": 10},
            4,
            r"SOLVER.IMS_PER_BATCH is 10, .*4 process.*set SOLVER.IMS_PER_BATCH to 8 or 12",
        ),
        ({"SOLVER.IMS_PER_BATCH": 2}, 8, "to 8, or SOLVER.SCALE_TO_WORLD True$"),
        ({"SOLVER.IMS_PER_BATCH": 0}, 1, "SOLVER.IMS_PER_BATCH is 0"),
        ({"TEST.IMS_PER_BATCH": 3}, 2, "TEST.IMS_PER_BATCH to 2 or 4"),
        ({"SOLVER.STEPS": (16000, 12000)}, 1, r"SOLVER.STEPS must be iterations in ascending order.*\(16000, 12000\)"),
        ({"SOLVER.STEPS": (10, 10)}, 1, "SOLVER.STEPS"),
        ({"CPU_THREADS": -1}, 1, "CPU_THREADS must be 0 or more, but is -1"),
        ({"SOLVER.STEPS": ("a", "b")}, 1, "SOLVER.STEPS"),
        ({"SOLVER.MAX_ITER": 0}, 1, "SOLVER.MAX_ITER must be at least 1, but is 0"),
        ({"SOLVER.BASE_LR": 0.0}, 1, "SOLVER.BASE_LR must be above 0"),
        ({"SOLVER.WARMUP_METHOD": "cosine"}, 1, "one of constant, linear, mlperf_linear, but is 'cosine'"),
        ({"DTYPE": "half"}, 1, "DTYPE must be one of float32, float16, bfloat16, tf32, but is 'half'"),
        ({"MODEL.DEVICE": "gpu"}, 1, "MODEL.DEVICE must be a device"),
        ({"MODEL.META_ARCHITECTURE": "YOLO"}, 1, "MODEL.META_ARCHITECTURE"),
        ({"MODEL.ROI_BOX_HEAD.NUM_CLASSES": 1}, 1, "NUM_CLASSES must be at least 2"),
        ({"MODEL.RPN.FG_IOU_THRESHOLD": 0.2}, 1, "MODEL.RPN.FG_IOU_THRESHOLD must be between BG_IOU_THRESHOLD"),
        ({"MODEL.RPN.ANCHOR_SIZES": (32, 64)}, 1, "MODEL.RPN.ANCHOR_SIZES must be one for each"),
        ({"MODEL.RPN.USE_FPN": False}, 1, "MODEL.RPN.ANCHOR_STRIDE"),
        ({"MODEL.ROI_MASK_HEAD.RESOLUTION": 14}, 1, "MODEL.ROI_MASK_HEAD.RESOLUTION is 14, .* set RESOLUTION to 28"),
        ({"DATALOADER.SIZE_DIVISIBILITY": 0}, 1, "DATALOADER.SIZE_DIVISIBILITY must be a multiple of 32"),
        ({"DATALOADER.BACKEND": "disk"}, 1, "DATALOADER.BACKEND must be one of auto, workers"),
        ({"DATALOADER.BROKEN_IMAGES": "drop"}, 1, "DATALOADER.BROKEN_IMAGES must be one of stop, skip, but is 'drop'"),
        ({"DATALOADER.PREFETCH": "on"}, 1, "DATALOADER.PREFETCH must be one of auto, always, never, but is 'on'"),
        (
            {"INPUT.SHAPE_BUCKETS": ((800, 1333),)},
            1,
            r"BUCKETS must be at most 8 pairs .*SIZE_DIVISIBILITY \(32\)",
        ),
        ({"INPUT.SHAPE_BUCKETS": (800, 1344)}, 1, r"SHAPE_BUCKETS must be at most 8 pairs \(height, width\)"),
        ({"INPUT.SHAPE_BUCKETS": [(32 * n, 32) for n in range(1, 10)]}, 1, "SHAPE_BUCKETS must be at most 8 pairs"),
        ({"MODEL.CAPTURE": "graphs"}, 1, "MODEL.CAPTURE must be one of eager, cuda_graphs, compile"),
        ({"MODEL.CAPTURE": "compile"}, 1, "MODEL.CAPTURE is 'compile', but INPUT.SHAPE_BUCKETS names no shape"),
        (
            {"MODEL.CAPTURE": "cuda_graphs", "INPUT.SHAPE_BUCKETS": ((800, 1344), (1344, 800))},
            1,
            "MODEL.CAPTURE is 'cuda_graphs', which needs CUDA, .* set MODEL.CAPTURE to compile or eager",
        ),
        ({"MODEL.RESNETS.STAGE_WITH_DCN": (False, True)}, 1, r"DCN must be four truth values, .* is \(False, True\)"),
        (
            {"MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True), "MODEL.RESNETS.DEFORMABLE_GROUPS": 3},
            1,
            "MODEL.RESNETS.DEFORMABLE_GROUPS must be a divisor of 128, .* but is 3",
        ),
        (
            {
                "MODEL.RESNETS.STAGE_WITH_DCN": (False, True, True, True),
                "MODEL.RESNETS.TRANS_FUNC": "BasicBlockWithFixedBatchNorm",
            },
            1,
            "STAGE_WITH_DCN must be all False with BasicBlockWithFixedBatchNorm",
        ),
        ({"SOLVER.FUSED_SGD": "adam"}, 1, "SOLVER.FUSED_SGD must be one of torch, apex"),
        ({"INPUT.MIN_SIZE_TRAIN": ()}, 1, "INPUT.MIN_SIZE_TRAIN must be positive"),
        ({"INPUT.PIXEL_STD": (1.0, 0.0, 1.0)}, 1, "INPUT.PIXEL_STD"),
        (
            {"TEST.BBOX_AUG.ENABLED": True, "MODEL.RPN_ONLY": True},
            1,
            "but MODEL.RPN_ONLY is True too, .* set TEST.BBOX",
        ),
        ({"TEST.BBOX_AUG.ENABLED": True, "TEST.BBOX_AUG.SCALES": (400, 0)}, 1, "TEST.BBOX_AUG.SCALES must be lengths"),
        ({"DATASETS.CUSTOM": [{"name": "a"}]}, 1, r"DATASETS.CUSTOM\[0\] lacks ann_file and lacks img_dir"),
        ({"DATASETS.CLASSES": ("a", "a")}, 1, r"DATASETS.CLASSES must be names of classes, each once"),
    ],
)
def test_a_fault_names_key_and_remedy(cfg, overrides, world_size, message):
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    with pytest.raises(ValueError, match=message) as caught:
        validate(cfg, world_size=world_size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"MODEL.ROI_KEYPOINT_HEAD.RESOLUTION": 28},
            r"HEAD.RESOLUTION must be four times its POOLER_RESOLUTION \(14\)",
        ),
        ({"MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES": 5}, r"TEST.KEYPOINT_OKS_SIGMAS must be one positive .*\(5\).*is \(\)"),
        ({"TEST.KEYPOINT_OKS_SIGMAS": (0.1,) * 16}, r"TEST.KEYPOINT_OKS_SIGMAS must be one positive number .*\(17\)"),
        ({"TEST.KEYPOINT_OKS_SIGMAS": (0.0,) * 17}, r"TEST.KEYPOINT_OKS_SIGMAS must be one positive number"),
    ],
)
def test_keypoints_fit_their_head_and_evaluation(cfg, repository, overrides, message):
    cfg.merge_from_file(repository / "configs" / "e2e_keypoint_rcnn_R_50_FPN_1x.yaml")
    validate(cfg)
    cfg.merge_from_list([item for pair in overrides.items() for item in pair])
    with pytest.raises(ValueError, match=message):
        validate(cfg)
    if "RESOLUTION" not in message:
        validate(cfg, testing=False)
        cfg.merge_from_list(["TEST.KEYPOINT_OKS_SIGMAS", (0.05,) * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES])
        validate(cfg)


def test_only_the_stage_that_runs_is_checked(cfg):
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 3, "SOLVER.STEPS", (2, 1)])
    validate(cfg, world_size=2, training=False)
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 4, "SOLVER.STEPS", (1, 2), "TEST.IMS_PER_BATCH", 3])
    validate(cfg, world_size=2, testing=False)


def test_heads_play_no_part_without_them(repository):
    cfg = global_cfg.clone()
    cfg.merge_from_file(repository / "configs" / "rpn_R_50_FPN_1x.yaml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.DILATION", 2])
    validate(cfg)
    cfg.merge_from_list(["MODEL.RPN_ONLY", False])
    with pytest.raises(ValueError, match=r"ROI_BOX_HEAD.DILATION is 2, which ResNet50Conv5ROI.* does not use"):
        validate(cfg)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(cfg):
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(ValueError, match=r"MODEL.DEVICE is 'cuda'.*no usable CUDA device; set MODEL.DEVICE cpu"):
        validate(cfg)


def test_assigned_alias(cfg):
    cfg.MODEL.BACKBONE.OUT_CHANNELS = 128
    cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = 1024
    validate(cfg)
    cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = 64
    with pytest.raises(ValueError, match=r"set MODEL.BACKBONE.OUT_CHANNELS only"):
        validate(cfg)
