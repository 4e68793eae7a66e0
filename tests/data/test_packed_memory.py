"""What annotations cost every process of a run, and how long they take to open."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset
from tests.data.annotation_memory import added_memory, mapped_mib, training_run
from tests.data.coco_size import NUM_IMAGES, NUM_INSTANCES, write_coco_json

RANKS, WORKERS = 8, 4


def opened(path: Path) -> COCODataset:
    return COCODataset(path, path.parent, remove_images_without_annotations=True)


def test_a_process_keeps_a_number_an_image_and_a_bit_an_annotation(tmp_path: Path) -> None:
    path, num_images, num_instances = tmp_path / "a.json", 3000, 20000
    write_coco_json(path, num_images=num_images, num_instances=num_instances)
    dataset = opened(path)
    own = sum(value.nbytes for value in vars(dataset).values() if isinstance(value, np.ndarray))
    assert own <= 4 * num_images + num_instances / 8 + 8
    several = ConcatDataset([dataset, dataset])
    assert len(several) == 2 * len(dataset)
    for each, count in ((dataset, 1), (several, 2)):
        assert len(pickle.dumps(each)) < count * (own + 4000), "what a worker gets that is not forked"
    assert several.id_to_img_map[len(dataset) + 7] == dataset.ids[7]
    assert not any(isinstance(value, (list, dict)) and len(value) > 1000 for value in vars(dataset).values())


def test_the_file_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_coco_json(path, num_images=4000, num_instances=30000)
    size = opened(path).packed.path.stat().st_size / 2**20
    with training_run(path, samples=4000, ranks=1, workers=2, start_method="fork") as pids:
        assert len(pids) == 3
        assert 0.5 * size < mapped_mib(pids) <= size, "each page counts once, in however many processes it is"


@pytest.mark.slow
def test_coco_opens_in_two_seconds_and_adds_200_mib_to_forty_processes(tmp_path: Path) -> None:
    path, control = tmp_path / "a.json", tmp_path / "control.json"
    write_coco_json(path)
    write_coco_json(control, num_images=16, num_instances=60)
    dataset = opened(path)
    assert (len(dataset.packed.image_ids), len(dataset.packed.labels)) == (NUM_IMAGES, NUM_INSTANCES)
    begin = time.perf_counter()
    opened(path)
    assert time.perf_counter() - begin < 2
    found = added_memory(path, control, samples=len(dataset), ranks=RANKS, workers=WORKERS)
    assert found["added"] < 200
