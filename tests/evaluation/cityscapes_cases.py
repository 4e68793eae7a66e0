"""Random scenes with detections for Cityscapes' figures, and what cityscapesscripts computes for them."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SEEDS = range(4)
HEIGHT, WIDTH, NUM_IMAGES = 96, 128, 6
LABEL_IDS = (24, 25, 26, 27, 28, 31, 32, 33)
# Label ids that the scenes have: few classes, so that each has many objects; 29 is a caravan, 29000 an object of it.
_CLASSES, _REGIONS = (24, 26, 33), (0, 4, 7, 11, 24, 26, 29, 29000, 30)


@dataclass(frozen=True)
class Case:
    """One image: ids uint16 [H, W] and detections as (label id, score, mask bool [H, W])."""

    ids: np.ndarray
    detections: list[tuple[int, float, np.ndarray]]


def _blob(rng: np.random.RandomState, largest: int) -> tuple[int, int, int, int]:
    half = rng.randint(3, largest, 2)
    return rng.randint(0, WIDTH), rng.randint(0, HEIGHT), int(half[0]), int(half[1])


def _drawn(x: int, y: int, a: int, b: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1


def make_cases(seed: int) -> list[Case]:
    """The images of a seed. Scores repeat, detections overlap, objects are found twice, cut, missed or too small."""
    rng = np.random.RandomState(seed)
    cases = []
    for _ in range(NUM_IMAGES):
        ids = np.full((HEIGHT, WIDTH), 7, dtype=np.uint16)
        for _ in range(5):
            ids[_drawn(*_blob(rng, 24))] = _REGIONS[rng.randint(len(_REGIONS))]
        blobs = []
        for number in range(rng.randint(3, 9)):
            blob, label = _blob(rng, 18), _CLASSES[rng.randint(len(_CLASSES))]
            ids[_drawn(*blob)] = label * 1000 + number
            blobs.append((blob, label))
        detections = []
        for (x, y, a, b), label in blobs:
            for _ in range(rng.randint(0, 4)):
                dx, dy = rng.randint(-3, 4, 2)
                scale = rng.uniform(0.8, 1.25, 2)
                mask = _drawn(x + dx, y + dy, max(1, int(a * scale[0])), max(1, int(b * scale[1])))
                detections.append((label, rng.randint(1, 20) / 20, mask))
        for _ in range(rng.randint(0, 5)):
            label = (*_CLASSES, 27)[rng.randint(4)]  # no object is a truck
            detections.append((label, rng.randint(1, 20) / 20, _drawn(*_blob(rng, 20))))
        detections.append((24, 0.5, np.zeros((HEIGHT, WIDTH), dtype=bool)))  # not a pixel
        cases.append(Case(ids, detections))
    return cases


def figures_of_the_package(cases: list[Case], folder: Path) -> dict[str, list]:
    """What cityscapesscripts says: "ap" [8 labels, 10 thresholds], None for not-a-number, and its averages."""
    vars(np).setdefault("in1d", np.isin)  # NumPy took it away, the package calls it
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as package

    truths, predictions = [], []
    for number, case in enumerate(cases):
        own = folder / f"{number}"
        own.mkdir(parents=True)
        lines = []
        for index, (label, score, mask) in enumerate(case.detections):
            cv2.imwrite(str(own / f"{index}.png"), mask.astype(np.uint8) * 255)
            lines.append(f"{index}.png {label} {score}\n")
        cv2.imwrite(str(own / "ids.png"), case.ids)
        (own / "pred.txt").write_text("".join(lines))
        truths.append(str(own / "ids.png"))
        predictions.append(str(own / "pred.txt"))
    args = package.args
    args.quiet, args.predictionPath, args.JSONOutput = True, str(folder), False
    args.gtInstancesFile = str(folder / "gtInstances.json")
    package.setInstanceLabels(args)
    instances = package.getGtInstances(truths, args)
    matches = package.matchGtWithPreds(predictions, truths, instances, args)
    table = package.evaluateMatches(matches, args)
    averages = package.computeAverages(table, args)
    plain = [[None if np.isnan(value) else float(value) for value in row] for row in table[0]]
    return {"ap": plain, "AP": float(averages["allAp"]), "AP50": float(averages["allAp50%"])}


def main() -> None:
    """Print the figures of all seeds as JSON, as they stand in tests/golden/cityscapes_ap.json."""
    import json
    import tempfile

    figures = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            figures[str(seed)] = figures_of_the_package(make_cases(seed), Path(folder))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
