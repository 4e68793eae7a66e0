"""Average recall of proposals against a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from maskrcnn_benchmark.evaluation.proposals import AREA_RANGES, best_one_to_one_ious, evaluate_box_proposals
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def _slow_twin(gt_boxes: np.ndarray, boxes: np.ndarray) -> list[float]:
    """Repeatedly: every free ground truth names its best free proposal; the best covered one takes its own."""
    free_gts, free_boxes, result = set(range(len(gt_boxes))), set(range(len(boxes))), [0.0] * len(gt_boxes)
    while free_gts and free_boxes:
        best = {g: max((_iou(gt_boxes[g], boxes[r]), r) for r in free_boxes) for g in free_gts}
        g = max(best, key=lambda gt: best[gt][0])
        result[g], taken = best[g]
        free_gts.remove(g)
        free_boxes.remove(taken)
    return result


@pytest.mark.parametrize(("num_gts", "num_boxes"), [(5, 12), (7, 3), (1, 1), (0, 4), (4, 0)])
def test_one_to_one_matching(num_gts: int, num_boxes: int) -> None:
    rng = np.random.default_rng(num_gts * 100 + num_boxes)
    gt_boxes = np.concatenate([rng.uniform(0, 30, (num_gts, 2)), rng.uniform(5, 40, (num_gts, 2))], axis=1)
    boxes = np.concatenate([rng.uniform(0, 30, (num_boxes, 2)), rng.uniform(5, 40, (num_boxes, 2))], axis=1)
    np.testing.assert_allclose(best_one_to_one_ious(gt_boxes, boxes), _slow_twin(gt_boxes, boxes))


class Annotated:
    """Images 11 and 12 of 400 x 300 pixels with boxes (x, y, width, height, area) and one crowd."""

    OBJECTS = {
        11: [(10, 10, 20, 20, 400), (50, 50, 64, 50, 2000), (100, 100, 200, 150, 30000)],
        12: [(0, 0, 32, 32, 32**2), (40, 40, 96, 96, 96**2)],
    }

    def __init__(self) -> None:
        self.id_to_img_map = {0: 11, 1: 12}
        annotations = [
            {"id": 10 * image + i, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": list(box), "area": area}
            for image, objects in self.OBJECTS.items()
            for i, (*box, area) in enumerate(objects)
        ]
        crowd = {"id": 1, "image_id": 11, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 400, 300], "area": 120000}
        self.coco = COCO()
        self.coco.dataset = {
            "images": [{"id": image, "width": 400, "height": 300} for image in self.OBJECTS],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [*annotations, crowd],
        }
        self.coco.createIndex()

    def get_img_info(self, index: int) -> dict:
        return self.coco.imgs[self.id_to_img_map[index]]


def proposals(boxes: list, scores: list[float]) -> BoxList:
    """Boxes (x, y, width, height) of the image, found on one of twice the size."""
    boxlist = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), (400, 300), "xywh")
    boxlist = boxlist.convert("xyxy").resize((800, 600))
    boxlist.add_field("objectness", torch.tensor(scores))
    return boxlist


def test_average_recall_by_hand() -> None:
    dataset = Annotated()
    first = [box[:4] for box in Annotated.OBJECTS[11]]
    predictions = {
        # the small one exactly; the medium one with IoU 0.74 (64 x 37 of 64 x 50); nothing near the large one
        0: proposals([first[0], (50, 50, 64, 37), (300, 0, 50, 50)], [0.2, 0.9, 0.5]),
        # the large one exactly, twice; the small one only by the third best
        1: proposals([(40, 40, 96, 96), (40, 40, 96, 96), (0, 0, 32, 32)], [0.9, 0.8, 0.1]),
    }

    def recall(area: str, limit: int | None = None) -> tuple[float, int]:
        result = evaluate_box_proposals(predictions, dataset, area=AREA_RANGES[area], limit=limit)
        return result.average_recall, result.num_ground_truths

    # IoU 0.74 counts at 0.50 to 0.70, five of ten thresholds
    assert recall("all") == (pytest.approx((1 + 0.5 + 0 + 1 + 1) / 5), 5)
    assert recall("small") == (pytest.approx(1.0), 2)  # 32^2 belongs to small and to medium
    assert recall("medium") == (pytest.approx((0.5 + 1 + 1) / 3), 3)  # and 96^2 to medium and to large
    assert recall("large") == (pytest.approx((0 + 1) / 2), 2)
    assert recall("all", limit=1) == (pytest.approx((0 + 0.5 + 0 + 0 + 1) / 5), 5)  # the best by objectness
    assert recall("small", limit=2) == (pytest.approx(0.0), 2)
    assert recall("128-256") == (pytest.approx(0.0), 1)
    assert recall("512-inf") == (-1.0, 0)


def published_recall(predictions: dict[int, BoxList], dataset: Annotated, area: tuple, limit: int) -> float:
    """The definition of the published evaluation in loops: overlaps of inclusive boxes, one proposal an object."""
    overlaps, count = [], 0
    for index, prediction in predictions.items():
        info = dataset.get_img_info(index)
        found = prediction.resize((info["width"], info["height"]))
        found = found[found.get_field("objectness").sort(descending=True)[1]][:limit]
        objects = [a for a in dataset.coco.imgToAnns[dataset.id_to_img_map[index]] if not a["iscrowd"]]
        boxes = [a["bbox"] for a in objects if area[0] <= a["area"] <= area[1]]
        count += len(boxes)
        if not boxes or not len(found):
            continue
        iou = boxlist_iou(found, BoxList(torch.tensor(boxes, dtype=torch.float32), found.size, "xywh").convert("xyxy"))
        for _ in range(min(iou.shape)):
            position = int(iou.argmax())
            overlaps.append(float(iou.flatten()[position]))
            iou[position // iou.shape[1]], iou[:, position % iou.shape[1]] = -1, -1
    return float(np.mean([np.sum(np.array(overlaps) >= t) / count for t in np.arange(0.5, 0.96, 0.05)]))


def test_equals_the_published_definition() -> None:
    dataset, generator = Annotated(), torch.Generator().manual_seed(2)
    predictions = {}
    for index, objects in enumerate(Annotated.OBJECTS.values()):
        near = torch.tensor([box[:4] for box in objects], dtype=torch.float32).repeat(12, 1)
        near += 8 * torch.randn(near.shape, generator=generator)
        predictions[index] = proposals(near.clamp(min=1).tolist(), torch.rand(len(near), generator=generator).tolist())
    for area in ("all", "small", "medium", "large"):
        for limit in (5, 1000):
            ours = evaluate_box_proposals(predictions, dataset, area=AREA_RANGES[area], limit=limit).average_recall
            assert ours == pytest.approx(published_recall(predictions, dataset, AREA_RANGES[area], limit)), (
                area,
                limit,
            )
    assert 0.1 < ours < 0.95
