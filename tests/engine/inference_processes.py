"""What test_inference starts in each process: inference over data sets whose sizes do not divide."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from pycocotools.coco import COCO

from maskrcnn_benchmark.data.samplers import DistributedSampler
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils import comm

SIZES = (7, 2)  # the second leaves one of three processes without an image
HEIGHT, WIDTH = 60, 80


class IndexDataset:
    """Images that say their number by their first pixel, each with one object."""

    def __init__(self, size):
        self.id_to_img_map = {index: 100 - index for index in range(size)}
        self.contiguous_category_id_to_json_id = {1: 3}
        self.coco = COCO()
        self.coco.dataset = {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in self.id_to_img_map.values()],
            "categories": [{"id": 3, "name": "thing"}],
            "annotations": [
                {
                    "id": n + 1,
                    "image_id": image_id,
                    "category_id": 3,
                    "bbox": [n, 5, 20, 30],
                    "area": 600,
                    "iscrowd": 0,
                    "segmentation": [[n, 5, n + 20, 5, n + 20, 35, n, 35]],
                }
                for n, image_id in self.id_to_img_map.items()
            ],
        }
        self.coco.createIndex()

    def __len__(self):
        return len(self.id_to_img_map)

    def get_img_info(self, index):
        return {"height": HEIGHT, "width": WIDTH}


class IndexLoader:
    """Batches of two images of this process's share."""

    def __init__(self, size):
        self.dataset = IndexDataset(size)
        self.seen = []

    def __iter__(self):
        share = list(DistributedSampler(self.dataset, shuffle=False, pad=False))
        for begin in range(0, len(share), 2):
            indices = tuple(share[begin : begin + 2])
            self.seen += indices
            pixels = torch.tensor(indices, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 4, 4)
            yield ImageList(pixels, [(HEIGHT, WIDTH)] * len(indices)), None, indices


class Placed(torch.nn.Module):
    """Finds one box an image, whose place follows from the image alone."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        found = []
        for pixels in images.tensors:
            number = pixels[0, 0, 0].item()
            boxes = BoxList(torch.tensor([[number, 5.0, number + 18.5, 33.0]]), (WIDTH, HEIGHT))
            boxes.add_field("scores", torch.tensor([0.3 + 0.05 * number]))
            boxes.add_field("labels", torch.tensor([1]))
            boxes.add_field("mask", torch.full((1, 1, 28, 28), 0.9))
            found.append(boxes)
        return found


def main(folder):
    comm.init_process_group(torch.device("cpu"))
    seen = []
    for size in SIZES:
        loader = IndexLoader(size)
        (folder / str(size)).mkdir(exist_ok=True)
        inference(Placed(), loader, "tiny", ("bbox", "segm"), device="cpu", output_folder=str(folder / str(size)))
        seen.append(loader.seen)
    torch.save(seen, folder / f"seen{comm.get_rank()}.pth")
    comm.synchronize()
    comm.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
