"""Detect on pictures with an exported ONNX file, where only numpy, OpenCV and onnxruntime are installed.

    python run_onnx.py MODEL.onnx [MODEL.onnx ...] --images PICTURE [PICTURE ...] --output predictions.json

Of several files, exported for several sizes, each picture takes the one in which it keeps most of its size. The result
is COCO json with boxes and what the network has besides: masks as compressed run lengths, keypoints. Copy this file
wherever it is needed.
Letters: D slots of a picture, M side of a predicted mask, P keypoints, H W the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

METADATA_KEY = "maskrcnn_benchmark"


class OnnxDetector:
    """An exported file, for one picture at a time.

    Args:
        path: of the .onnx file; what it needs to know is in its metadata.
        providers: of onnxruntime, for instance ["CUDAExecutionProvider", "CPUExecutionProvider"].
        num_threads: of the processor; 0 takes all cores.
    """

    def __init__(self, path: str, providers: list[str] | None = None, num_threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=providers or ["CPUExecutionProvider"]
        )
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ValueError(f"{path} has no metadata {METADATA_KEY!r}: it was not written by tools/export.py")
        self.metadata: dict[str, Any] = json.loads(text)
        self.outputs: list[str] = self.metadata["outputs"]

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) to which a picture is scaled: as in training, or smaller to fit onto the canvas."""
        shorter, longer = min(height, width), max(height, width)
        target, limit = self.metadata["min_size"], self.metadata["max_size"]
        if limit and longer / shorter * target > limit:
            target = max(round(limit * shorter / longer), 1)
        if shorter == target:
            size = height, width
        elif width < height:
            size = int(target * height / width), target
        else:
            size = target, int(target * width / height)
        shrink = min(self.metadata["height"] / size[0], self.metadata["width"] / size[1], 1.0)
        return size if shrink == 1 else (max(int(size[0] * shrink), 1), max(int(size[1] * shrink), 1))

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs of the network, images and image_sizes, for a BGR picture uint8 [H, W, 3]."""
        data = self.metadata
        height, width = self.size_of(*picture.shape[:2])
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        canvas = np.zeros((data["batch"], data["height"], data["width"], 3), np.uint8)
        canvas[0, :height, :width] = picture
        sizes = np.ones((data["batch"], 2), np.int64)
        sizes[0] = height, width
        if not data["takes_pixels"]:
            pixels = canvas[..., ::-1] if data["channel_order"] == "RGB" else canvas
            mean, std = (np.asarray(data[key], np.float32) for key in ("pixel_mean", "pixel_std"))
            canvas = (pixels - mean) / std
            canvas[:, height:] = 0
            canvas[:, :, width:] = 0
        return np.ascontiguousarray(canvas.transpose(0, 3, 1, 2)), sizes

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Detect.

        Args:
            picture: uint8 [H, W, 3] in BGR, as OpenCV reads it.

        Returns:
            boxes [n, 4] (x1, y1, x2, y2) in the picture's inclusive pixels, scores [n], labels [n] (index into the
            metadata's categories, from 1 on), best first; masks bool [n, H, W] and keypoints [n, P, 3] (x, y, logit)
            where the network has them.
        """
        images, sizes = self.prepare(picture)
        values = self.session.run(self.outputs, {"images": images, "image_sizes": sizes})
        found = dict(zip(self.outputs, (value[0] for value in values), strict=True))
        valid = found.pop("valid")
        found = {name: value[valid] for name, value in found.items()}
        height, width = picture.shape[:2]
        if "keypoint_maps" in found:
            found["keypoints"] = read_keypoints(found.pop("keypoint_maps"), found["boxes"])
        ratios = np.float32([width / sizes[0, 1], height / sizes[0, 0]])
        found["boxes"] = found["boxes"] * np.tile(ratios, 2)
        if "keypoints" in found:
            found["keypoints"][..., :2] *= ratios
        if "masks" in found:
            threshold = self.metadata["mask_threshold"]
            masks = np.zeros((len(found["boxes"]), height, width), bool)
            for pasted, mask, box in zip(masks, found["masks"], found["boxes"], strict=True):
                pasted[:] = paste(mask, box, height, width) > threshold
            found["masks"] = masks
        return found


def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Probabilities [H, W] float32 of a mask [M, M] that is enlarged to its box; zero elsewhere.

    As in training, the mask gets a border of one zero, and the box grows in proportion and is cut to whole pixels.
    """
    side = mask.shape[0]
    padded = np.pad(mask.astype(np.float32), 1)
    half = (box[2:] - box[:2]) * 0.5 * np.float32((side + 2) / side)
    centre = (box[2:] + box[:2]) * 0.5
    (x1, y1), (x2, y2) = (np.trunc(corner).astype(int) for corner in (centre - half, centre + half))
    result = np.zeros((height, width), np.float32)
    top, bottom, left, right = max(y1, 0), min(y2 + 1, height), max(x1, 0), min(x2 + 1, width)
    if top < bottom and left < right:
        enlarged = cv2.resize(padded, (x2 - x1 + 1, y2 - y1 + 1), interpolation=cv2.INTER_LINEAR)
        result[top:bottom, left:right] = enlarged[top - y1 : bottom - y1, left - x1 : right - x1]
    return result


def read_keypoints(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Keypoints [n, P, 3] (x, y, logit) at the peaks of heat maps [n, P, M, M], enlarged to their boxes [n, 4]."""
    points = np.zeros((*maps.shape[:2], 3), np.float32)
    for person, heat_maps, box in zip(points, maps, boxes, strict=True):
        extent = np.maximum(box[2:] - box[:2], 1)
        columns, rows = np.ceil(extent).astype(int)
        for point, heat_map in zip(person, heat_maps, strict=True):
            enlarged = cv2.resize(heat_map, (int(columns), int(rows)), interpolation=cv2.INTER_CUBIC)
            y, x = np.unravel_index(enlarged.argmax(), enlarged.shape)
            point[:2] = (np.float32([x, y]) + 0.5) * extent / (columns, rows) + box[:2]
            point[2] = enlarged[y, x]
    return points


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask bool [H, W]: column by column, zeros first, five bits a character."""
    pixels = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    text = bytearray()
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append((bits | 32 if more else bits) + 48)
    return {"size": list(mask.shape), "counts": text.decode("ascii")}


def annotations_of(found: dict[str, np.ndarray], categories: list[dict], image_id: int, first_id: int) -> list[dict]:
    """Detections of `OnnxDetector` as COCO annotations with a score; class 1 where the network knows no classes."""
    result = []
    for index, (box, score) in enumerate(zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True)):
        label = int(found["labels"][index]) if "labels" in found else 1
        x1, y1, x2, y2 = box
        bbox = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
        entry = {"id": first_id + index, "image_id": image_id, "category_id": categories[label - 1]["id"]}
        entry |= {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "score": score}
        if "masks" in found:
            entry["segmentation"] = encode_mask(found["masks"][index])
            entry["area"] = int(found["masks"][index].sum())
        if "keypoints" in found:
            points = found["keypoints"][index]
            entry["keypoints"] = [v for x, y, _ in points.tolist() for v in (x, y, 1)]
            entry["num_keypoints"] = len(points)
        result.append(entry)
    return result


def choose(detectors: list[OnnxDetector], picture: np.ndarray) -> OnnxDetector:
    """The detector in which a picture keeps most of its size; of equal ones the one with the smallest canvas."""

    def merit(detector: OnnxDetector) -> tuple[int, int]:
        height, width = detector.size_of(*picture.shape[:2])
        return height * width, -detector.metadata["height"] * detector.metadata["width"]

    return max(detectors, key=merit)


def main() -> int:
    """Run the program; return its exit status, 1 when a picture is broken."""
    parser = argparse.ArgumentParser(description="Detect on pictures with an ONNX file of tools/export.py.")
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--images", nargs="+", required=True, metavar="PICTURE")
    parser.add_argument("--output", default="predictions.json", help="COCO json (default: %(default)s)")
    parser.add_argument("--confidence-threshold", type=float, default=0.5, help="least score (default: %(default)s)")
    args = parser.parse_args()
    detectors = [OnnxDetector(path) for path in args.models]
    categories = detectors[0].metadata["categories"]
    images: list[dict] = []
    annotations: list[dict] = []
    broken = 0
    for path in args.images:
        picture = cv2.imread(path, cv2.IMREAD_COLOR)
        if picture is None:
            print(f"{path} is not a picture that OpenCV can read", file=sys.stderr)
            broken += 1
            continue
        found = choose(detectors, picture)(picture)
        sure = found["scores"] >= args.confidence_threshold
        found = {name: value[sure] for name, value in found.items()}
        images.append({"id": len(images) + 1, "file_name": path, "height": picture.shape[0], "width": picture.shape[1]})
        annotations += annotations_of(found, categories, len(images), len(annotations) + 1)
        print(f"{path}: {len(found['scores'])} detections")
    Path(args.output).write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
