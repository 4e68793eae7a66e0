"""An untrained network of the demo, and candidates that the project draws by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset
from maskrcnn_benchmark.data.transforms.build import ImagePreparer
from maskrcnn_benchmark.modeling.detector import build_detection_model
from tests.apps.conftest import one_thread  # noqa: F401 (a fixture)
from tests.apps.tiny_run import OPTIONS
from tests.conftest import REPOSITORY

DEMO_CONFIG = "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
RETINANET = ["MODEL.RETINANET_ON", True, "MODEL.MASK_ON", False, "MODEL.RETINANET.NUM_CLASSES", 5]


def make_predictor(*options: object) -> Predictor:
    """An untrained network, the same in each call; its scores are about 0.2, equal for all classes."""
    config = cfg.clone()
    config.merge_from_file(REPOSITORY / DEMO_CONFIG)
    small = {**OPTIONS, "MODEL.ROI_BOX_HEAD.NUM_CLASSES": 5, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 12}
    config.merge_from_list([word for pair in small.items() for word in pair] + [*options])
    torch.manual_seed(0)
    return Predictor(
        build_detection_model(config),
        prepare=ImagePreparer.from_config(config),
        categories=[],
        size_divisible=config.DATALOADER.SIZE_DIVISIBILITY,
    )


@pytest.fixture(autouse=True)
def on_one_thread(one_thread: None) -> None:  # noqa: F811
    """Tiny networks are slower on two."""


@pytest.fixture(scope="session")
def demo_predictor() -> Predictor:
    return make_predictor()


@pytest.fixture(scope="session")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of drawn pictures."""
    root = tmp_path_factory.mktemp("shapes")
    folder, _ = ensure_shapes_dataset(root, split="pool", num_images=6, image_size=224)
    return sorted(str(path) for path in Path(folder).iterdir())
