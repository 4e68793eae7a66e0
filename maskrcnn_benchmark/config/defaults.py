"""Every config key with its default.

Names and defaults are the published ones; keys with a comment are additions, and their defaults keep the published
behaviour. A key's type is its default's (see ``node.EXTRA_TYPES`` for the few that accept more).
"""

from __future__ import annotations

from pathlib import Path

from maskrcnn_benchmark.config.node import CfgNode

_C = CfgNode()
_C.OUTPUT_DIR = "."
_C.USE_TORCH_DDP = True
_C.DTYPE = "float32"
_C.NHWC = True
_C.PER_EPOCH_EVAL = False
_C.MIN_BBOX_MAP = 0.377
_C.MIN_MASK_MAP = 0.342
_C.SAVE_CHECKPOINT = True
# Everything random is derived from it: initial weights, order of samples, augmentation, sampling.
_C.SEED = 0
# The same bits in every run on a GPU too, for some speed; on a CPU they are the same anyway.
_C.DETERMINISTIC = False
# Threads of each process on a CPU, on which the last bits depend; 0: PyTorch's choice, OMP_NUM_THREADS or one a core.
_C.CPU_THREADS = 0
# Seconds that one process waits for the others before the run ends; an evaluation, which one alone ends, is shorter.
_C.PROCESS_TIMEOUT = 3600
# A Python file with the classes DatasetCatalog and ModelCatalog; one's own file is consulted before the package's.
_C.PATHS_CATALOG = str(Path(__file__).parent / "paths_catalog.py")
_C.AMP_VERBOSE = False
# Whether training and testing end with OUTPUT_DIR/report.html; tools/report.py writes it at any time.
_C.REPORT = True

_C.MODEL = CfgNode()
_C.MODEL.RPN_ONLY = False
_C.MODEL.MASK_ON = False
_C.MODEL.DEVICE = "cuda"
_C.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
_C.MODEL.WEIGHT = ""
_C.MODEL.RETINANET_ON = False
_C.MODEL.KEYPOINT_ON = False
_C.MODEL.CLS_AGNOSTIC_BBOX_REG = False
# How training runs backbone, pyramid and RPN head on batches of a shape in INPUT.SHAPE_BUCKETS: "eager" as they are,
# "cuda_graphs" recorded, "compile" by torch.compile.
_C.MODEL.CAPTURE = "eager"
# On a CPU in float32: 3x3 convolutions with a fifth of the multiplications, with errors of 1e-5 instead of 1e-7.
_C.MODEL.WINOGRAD = True

_C.MODEL.BACKBONE = CfgNode()
_C.MODEL.BACKBONE.CONV_BODY = "R-50-C4"
_C.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = 2
_C.MODEL.BACKBONE.OUT_CHANNELS = 1024
_C.MODEL.BACKBONE.USE_GN = False

_C.MODEL.FPN = CfgNode()
_C.MODEL.FPN.USE_GN = False
_C.MODEL.FPN.USE_RELU = False

_C.MODEL.GROUP_NORM = CfgNode()
_C.MODEL.GROUP_NORM.DIM_PER_GP = -1
_C.MODEL.GROUP_NORM.NUM_GROUPS = 32
_C.MODEL.GROUP_NORM.EPSILON = 1e-05

_C.MODEL.RPN = CfgNode()
_C.MODEL.RPN.USE_FPN = False
_C.MODEL.RPN.ANCHOR_SIZES = (32, 64, 128, 256, 512)
_C.MODEL.RPN.ANCHOR_STRIDE = (16,)
_C.MODEL.RPN.ASPECT_RATIOS = (0.5, 1.0, 2.0)
_C.MODEL.RPN.STRADDLE_THRESH = 0
_C.MODEL.RPN.FG_IOU_THRESHOLD = 0.7
_C.MODEL.RPN.BG_IOU_THRESHOLD = 0.3
_C.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 256
_C.MODEL.RPN.POSITIVE_FRACTION = 0.5
_C.MODEL.RPN.PRE_NMS_TOP_N_TRAIN = 12000
_C.MODEL.RPN.PRE_NMS_TOP_N_TEST = 6000
_C.MODEL.RPN.POST_NMS_TOP_N_TRAIN = 2000
_C.MODEL.RPN.POST_NMS_TOP_N_TEST = 1000
_C.MODEL.RPN.NMS_THRESH = 0.7
_C.MODEL.RPN.MIN_SIZE = 0
_C.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN = 2000
_C.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST = 2000
_C.MODEL.RPN.RPN_HEAD = "SingleConvRPNHead"
_C.MODEL.RPN.FPN_POST_NMS_PER_BATCH = True

_C.MODEL.ROI_HEADS = CfgNode()
_C.MODEL.ROI_HEADS.USE_FPN = False
_C.MODEL.ROI_HEADS.FG_IOU_THRESHOLD = 0.5
_C.MODEL.ROI_HEADS.BG_IOU_THRESHOLD = 0.5
_C.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_C.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
_C.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25
_C.MODEL.ROI_HEADS.SCORE_THRESH = 0.05
_C.MODEL.ROI_HEADS.NMS = 0.5
_C.MODEL.ROI_HEADS.DETECTIONS_PER_IMG = 100

_C.MODEL.ROI_BOX_HEAD = CfgNode()
_C.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"
_C.MODEL.ROI_BOX_HEAD.PREDICTOR = "FastRCNNPredictor"
_C.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_BOX_HEAD.POOLER_SCALES = (0.0625,)
_C.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
_C.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_BOX_HEAD.USE_GN = False
_C.MODEL.ROI_BOX_HEAD.DILATION = 1
_C.MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM = 256
_C.MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS = 4

_C.MODEL.ROI_MASK_HEAD = CfgNode()
_C.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"
_C.MODEL.ROI_MASK_HEAD.PREDICTOR = "MaskRCNNC4Predictor"
_C.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_MASK_HEAD.POOLER_SCALES = (0.0625,)
_C.MODEL.ROI_MASK_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_MASK_HEAD.CONV_LAYERS = (256, 256, 256, 256)
_C.MODEL.ROI_MASK_HEAD.RESOLUTION = 14
_C.MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR = True
_C.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS = False
_C.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD = 0.5
_C.MODEL.ROI_MASK_HEAD.DILATION = 1
_C.MODEL.ROI_MASK_HEAD.USE_GN = False
# Training computes as many regions as an image can have positives, empty or not, instead of waiting for their number.
_C.MODEL.ROI_MASK_HEAD.FIXED_SLOTS = False

_C.MODEL.RESNETS = CfgNode()
_C.MODEL.RESNETS.NUM_GROUPS = 1
_C.MODEL.RESNETS.WIDTH_PER_GROUP = 64
_C.MODEL.RESNETS.STRIDE_IN_1X1 = True
_C.MODEL.RESNETS.TRANS_FUNC = "BottleneckWithFixedBatchNorm"
_C.MODEL.RESNETS.STEM_FUNC = "StemWithFixedBatchNorm"
_C.MODEL.RESNETS.RES5_DILATION = 1
_C.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
_C.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
_C.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = 1024
_C.MODEL.RESNETS.STAGE_WITH_DCN = (False, False, False, False)
_C.MODEL.RESNETS.WITH_MODULATED_DCN = False
_C.MODEL.RESNETS.DEFORMABLE_GROUPS = 1

_C.MODEL.ROI_KEYPOINT_HEAD = CfgNode()
_C.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR = "KeypointRCNNFeatureExtractor"
_C.MODEL.ROI_KEYPOINT_HEAD.PREDICTOR = "KeypointRCNNPredictor"
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES = (0.0625,)
_C.MODEL.ROI_KEYPOINT_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS = (512, 512, 512, 512, 512, 512, 512, 512)
_C.MODEL.ROI_KEYPOINT_HEAD.RESOLUTION = 14
_C.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES = 17
_C.MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR = True
# As MODEL.ROI_MASK_HEAD.FIXED_SLOTS.
_C.MODEL.ROI_KEYPOINT_HEAD.FIXED_SLOTS = False

_C.MODEL.RETINANET = CfgNode()
_C.MODEL.RETINANET.NUM_CLASSES = 81
_C.MODEL.RETINANET.ANCHOR_SIZES = (32, 64, 128, 256, 512)
_C.MODEL.RETINANET.ASPECT_RATIOS = (0.5, 1.0, 2.0)
_C.MODEL.RETINANET.ANCHOR_STRIDES = (8, 16, 32, 64, 128)
_C.MODEL.RETINANET.STRADDLE_THRESH = 0
_C.MODEL.RETINANET.OCTAVE = 2.0
_C.MODEL.RETINANET.SCALES_PER_OCTAVE = 3
_C.MODEL.RETINANET.USE_C5 = True
_C.MODEL.RETINANET.NUM_CONVS = 4
_C.MODEL.RETINANET.BBOX_REG_WEIGHT = 4.0
_C.MODEL.RETINANET.BBOX_REG_BETA = 0.11
_C.MODEL.RETINANET.PRE_NMS_TOP_N = 1000
_C.MODEL.RETINANET.FG_IOU_THRESHOLD = 0.5
_C.MODEL.RETINANET.BG_IOU_THRESHOLD = 0.4
_C.MODEL.RETINANET.LOSS_ALPHA = 0.25
_C.MODEL.RETINANET.LOSS_GAMMA = 2.0
_C.MODEL.RETINANET.PRIOR_PROB = 0.01
_C.MODEL.RETINANET.INFERENCE_TH = 0.05
_C.MODEL.RETINANET.NMS_TH = 0.4

_C.MODEL.FBNET = CfgNode()
_C.MODEL.FBNET.ARCH = "default"
_C.MODEL.FBNET.ARCH_DEF = ""
_C.MODEL.FBNET.BN_TYPE = "bn"
_C.MODEL.FBNET.SCALE_FACTOR = 1.0
_C.MODEL.FBNET.WIDTH_DIVISOR = 1
_C.MODEL.FBNET.DW_CONV_SKIP_BN = True
_C.MODEL.FBNET.DW_CONV_SKIP_RELU = True
_C.MODEL.FBNET.DET_HEAD_LAST_SCALE = 1.0
_C.MODEL.FBNET.DET_HEAD_BLOCKS = ()
_C.MODEL.FBNET.DET_HEAD_STRIDE = 0
_C.MODEL.FBNET.KPTS_HEAD_LAST_SCALE = 0.0
_C.MODEL.FBNET.KPTS_HEAD_BLOCKS = ()
_C.MODEL.FBNET.KPTS_HEAD_STRIDE = 0
_C.MODEL.FBNET.MASK_HEAD_LAST_SCALE = 0.0
_C.MODEL.FBNET.MASK_HEAD_BLOCKS = ()
_C.MODEL.FBNET.MASK_HEAD_STRIDE = 0
_C.MODEL.FBNET.RPN_HEAD_BLOCKS = 0
_C.MODEL.FBNET.RPN_BN_TYPE = ""

_C.INPUT = CfgNode()
_C.INPUT.MIN_SIZE_TRAIN = 800
_C.INPUT.MAX_SIZE_TRAIN = 1333
_C.INPUT.MIN_SIZE_TEST = 800
_C.INPUT.MAX_SIZE_TEST = 1333
_C.INPUT.PIXEL_MEAN = (102.9801, 115.9465, 122.7717)
_C.INPUT.PIXEL_STD = (1.0, 1.0, 1.0)
_C.INPUT.TO_BGR255 = True
_C.INPUT.BRIGHTNESS = 0.0
_C.INPUT.CONTRAST = 0.0
_C.INPUT.SATURATION = 0.0
_C.INPUT.HUE = 0.0
_C.INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.5
_C.INPUT.VERTICAL_FLIP_PROB_TRAIN = 0.0
# Shapes (height, width) of batches, such as ((800, 1344), (1344, 800)): each is padded to the smallest that holds it.
_C.INPUT.SHAPE_BUCKETS = ()

_C.DATASETS = CfgNode()
_C.DATASETS.TRAIN = ()
_C.DATASETS.TEST = ()
# Folder that the paths of the catalogue are relative to. The environment variable DATA_DIR goes before it.
_C.DATASETS.DATA_DIR = "/datasets"
# One's own data sets, each a mapping such as {name, img_dir, ann_file} for COCO's format; docs/custom_data.md has the
# others. Paths are absolute or relative to DATA_DIR.
_C.DATASETS.CUSTOM = []
# Names of the labels 1, 2, ...; read from the data of CUSTOM where empty.
_C.DATASETS.CLASSES = ()
# Whether training takes images without objects too; an entry of CUSTOM may say it for itself: keep_background.
_C.DATASETS.KEEP_BACKGROUND = False

_C.DATALOADER = CfgNode()
_C.DATALOADER.NUM_WORKERS = 4
_C.DATALOADER.SIZE_DIVISIBILITY = 0
_C.DATALOADER.ASPECT_RATIO_GROUPING = True
_C.DATALOADER.HYBRID = True
# What decodes images: "workers", processes of the CPU; "dali"; "nvjpeg", torchvision on the GPU; or "auto": with a
# GPU and HYBRID True the first of dali, nvjpeg and workers that is there, otherwise workers.
_C.DATALOADER.BACKEND = "auto"
# Whether batches are normalised where the network runs, and on a GPU copied there while the step before computes:
# "always", "never" (then the workers do it), or "auto": what is faster, which so far is always.
_C.DATALOADER.PREFETCH = "auto"
# What happens when an image cannot be read: "stop", or "skip": training takes another, chosen by SEED, epoch
# and index alone; in testing it counts as an image without detections. The log names them.
_C.DATALOADER.BROKEN_IMAGES = "stop"
# Seconds that a batch may keep training waiting before the run ends, where workers load; 0 waits for ever.
_C.DATALOADER.TIMEOUT = 900

_C.SOLVER = CfgNode()
_C.SOLVER.MAX_ITER = 40000
_C.SOLVER.BASE_LR = 0.001
_C.SOLVER.BIAS_LR_FACTOR = 2
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.WEIGHT_DECAY = 0.0005
_C.SOLVER.WEIGHT_DECAY_BIAS = 0
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.STEPS = (30000,)
_C.SOLVER.WARMUP_FACTOR = 1.0 / 3.0
_C.SOLVER.WARMUP_ITERS = 500
_C.SOLVER.WARMUP_METHOD = "linear"
_C.SOLVER.CHECKPOINT_PERIOD = 2500
# How many numbered checkpoints stay, the newest ones, beside model_final.pth; 0 for all.
_C.SOLVER.CHECKPOINT_KEEP = 0
# Write checkpoints while training goes on, from a copy in host memory; the files are the same.
_C.SOLVER.CHECKPOINT_ASYNC = True
_C.SOLVER.IMS_PER_BATCH = 16
_C.SOLVER.ACCUMULATE_STEPS = 1
_C.SOLVER.ACCUMULATE_GRAD = False
_C.SOLVER.TEST_PERIOD = 0
# Where the processes cannot divide IMS_PER_BATCH: take the nearest batch that they can, and scale rate and schedule
# with it, so that as many images are seen; a resumed run then counts its iterations anew. False: an error.
_C.SOLVER.SCALE_TO_WORLD = False
# Iterations between two lines of the training log.
_C.SOLVER.LOG_PERIOD = 20
# Norm to which gradients are clipped; 0 does not clip.
_C.SOLVER.MAX_GRAD_NORM = 0.0
# What updates the weights: "SGD" with MOMENTUM; "Adam" or "AdamW" with BETAS, which want a far smaller BASE_LR.
_C.SOLVER.OPTIMIZER = "SGD"
_C.SOLVER.BETAS = (0.9, 0.999)
# Whose fused SGD updates the weights: "torch", or "apex" where NVIDIA's apex is installed.
_C.SOLVER.FUSED_SGD = "torch"
# What happens when a loss or gradient is not finite: "stop", or "skip": that update is not made, on no process.
_C.SOLVER.NONFINITE = "stop"
# With "skip": so many updates in a row that are not finite end the run after all.
_C.SOLVER.NONFINITE_LIMIT = 10
# Hours that a run may take, counted from the start of the program and over all starts; training ends in time for the
# last checkpoint and its evaluation. 0: no limit.
_C.SOLVER.MAX_TIME = 0.0
# With MAX_TIME: iterations after which MAX_ITER, STEPS and WARMUP_ITERS are shortened, once, to what there is time for
# at the speed measured; 0: never.
_C.SOLVER.MAX_TIME_FIT_AFTER = 0
# The time_budget.json of a run (or its folder), whose end and schedule are repeated, so that the bits are the same.
_C.SOLVER.MAX_TIME_REPEAT = ""

_C.TEST = CfgNode()
_C.TEST.EXPECTED_RESULTS = ()
_C.TEST.EXPECTED_RESULTS_SIGMA_TOL = 4
_C.TEST.IMS_PER_BATCH = 8
_C.TEST.DETECTIONS_PER_IMG = 100
# How far annotators differ on each keypoint, in units of the object's size; () stands for COCO's 17 keypoints.
_C.TEST.KEYPOINT_OKS_SIGMAS = ()
# Who computes COCO's figures of boxes and masks: "fast", or "pycocotools"; the figures are the same to the bit.
_C.TEST.COCO_ENGINE = "fast"
# Resamples of the images for the confidence intervals in evaluation.json; 0 for none.
_C.TEST.BOOTSTRAP = 200
# Batches at the beginning that count neither for latency nor for throughput.
_C.TEST.WARM_UP = 0
# Whether training goes on while the figures of SOLVER.TEST_PERIOD are computed; its weights do not depend on it.
_C.TEST.IN_BACKGROUND = True
# Hours that predict.py may take, counted from the start of the program; what is done by then is written. 0: no limit.
_C.TEST.MAX_TIME = 0.0

_C.TEST.BBOX_AUG = CfgNode()
_C.TEST.BBOX_AUG.ENABLED = False
_C.TEST.BBOX_AUG.H_FLIP = False
_C.TEST.BBOX_AUG.SCALES = ()
_C.TEST.BBOX_AUG.MAX_SIZE = 4000
_C.TEST.BBOX_AUG.SCALE_H_FLIP = False

# The log of a training run in MLPerf's format, which its compliance checker reads.
_C.MLPERF = CfgNode()
# The file, relative to OUTPUT_DIR; "" writes none.
_C.MLPERF.LOG = ""
# What the log says of the submission; an empty PLATFORM stands for the number and name of the devices.
_C.MLPERF.DIVISION = "closed"
_C.MLPERF.STATUS = "research"
_C.MLPERF.ORG = "unofficial"
_C.MLPERF.PLATFORM = ""

# Where the figures of a run go, beside the log; docs/tracking.md.
_C.TRACKING = CfgNode()
# Any of dllogger, jsonl, tensorboard, which write files, and mlflow, clearml, neptune, wandb; () for none.
_C.TRACKING.BACKENDS = ("dllogger", "jsonl", "tensorboard")
# Under which names trackers keep the run: a project, in it an experiment where one is named, in it the run, which
# has the name of OUTPUT_DIR's last folder where it has none here.
_C.TRACKING.PROJECT = "maskrcnn_benchmark"
_C.TRACKING.EXPERIMENT = ""
_C.TRACKING.NAME = ""
_C.TRACKING.TAGS = ()
# Whether trackers are given model_final.pth too.
_C.TRACKING.UPLOAD_MODEL = False
# Seconds that the program waits at its end for trackers that have not taken everything.
_C.TRACKING.TIMEOUT = 60.0
