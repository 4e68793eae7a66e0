"""Small random ground truth and detections with everything that COCO's evaluation treats in a way of its own."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HEIGHT, WIDTH = 90, 140


def random_coco(seed, *, num_images=8, num_categories=4, most_objects=9, most_detections=30, crowds=0.15, ties=0.5):
    """(ground truth, {"bbox": result list, "segm": result list}).

    Crowds, objects of all sizes, images and categories without objects, detections of unknown categories, equal scores,
    detections that are objects, moved a little, or anywhere.
    """
    random = np.random.RandomState(seed)
    categories = (random.permutation(20)[:num_categories] + 1).tolist()
    used = categories[: max(1, num_categories - 1)]
    images = [{"id": int(i), "height": HEIGHT, "width": WIDTH} for i in random.permutation(100)[:num_images] + 1]
    annotations, results = [], {"bbox": [], "segm": []}
    for image in images:
        objects = []
        for _ in range(random.randint(most_objects + 1)):
            box = _box(random)
            annotation = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(random.choice(used))}
            annotation |= {"bbox": box, "area": box[2] * box[3] * random.choice([1.0, 0.6]), "iscrowd": 0}
            annotation["segmentation"] = _rings(random, box)
            if random.rand() < crowds:
                annotation |= {"iscrowd": 1, "segmentation": _uncompressed(box)}
            annotations.append(annotation)
            objects.append(annotation)
        for _ in range(random.randint(most_detections + 1)):
            category, box = int(random.choice([*categories, 99])), _box(random)
            if objects and random.rand() < 0.7:
                found = objects[random.randint(len(objects))]
                box = [float(v) for v in np.array(found["bbox"]) + random.choice([0, 1, 4]) * random.randn(4)]
                box = [box[0], box[1], max(box[2], 0.5), max(box[3], 0.5)]
                category = found["category_id"] if random.rand() < 0.8 else category
            score = float(random.randint(4)) / 4 if random.rand() < ties else float(random.rand())
            common = {"image_id": image["id"], "category_id": category, "score": score}
            results["bbox"].append({**common, "bbox": box})
            rle = mask_utils.merge(mask_utils.frPyObjects(_rings(random, box), HEIGHT, WIDTH))
            segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
            results["segm"].append({**common, "segmentation": segmentation})
    coco = COCO()
    coco.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco, results


def reference(coco, results, iou_type, image_ids=None):
    """The COCOeval of pycocotools alone, summarised."""
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO()
        loaded.dataset = {**coco.dataset, "annotations": []}
        for number, result in enumerate(copy.deepcopy(results), start=1):
            if iou_type == "bbox":
                area = result["bbox"][2] * result["bbox"][3]
            else:
                area = float(mask_utils.area(result["segmentation"]))
            loaded.dataset["annotations"].append({**result, "area": area, "id": number, "iscrowd": 0})
        loaded.createIndex()
        evaluation = COCOeval(copy.deepcopy(coco), loaded, iou_type)
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _box(random):
    side = random.choice([8, 25, 60])
    w, h = (random.rand(2) * side + 2).round(1)
    return [float(v) for v in (*(random.rand(2) * (WIDTH - w, HEIGHT - h)).round(1), w, h)]


def _rings(random, box):
    x, y, w, h = box
    around = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if random.rand() < 0.3:  # two parts
        return [[x, y, x + w / 2, y, x, y + h], [x + w / 2, y + h, x + w, y, x + w, y + h, x + w * 0.9, y + h]]
    return around


def _uncompressed(box):
    image = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x, y, w, h = map(int, box)
    image[y : y + h + 1, x : x + w + 1] = True
    flat = image.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *lengths] if flat[0] else lengths}
