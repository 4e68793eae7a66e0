"""Is mining worth it? AP after training on 100 mined pictures against 100 random ones, three seeds.

The round that the algorithms are made for, once for each seed:

1. A small model: the demo's network, trained on 60 annotated pictures.
2. A pool of 600 pictures without annotations. As in a camera's archive most show nothing (two thirds: backgrounds of
   such scenes), and one class, the cross, is rare: of the pictures that show one, 1 in 10 is kept. The 60 come from the
   same archive, from the third that shows something.
3. Each algorithm scores the pool with that model, and its 100 best are annotated.
4. The model is trained on with the 60 and the 100, as many iterations for every algorithm. Pictures without objects are
   left out of training, as the package always does, so each of them that was chosen is lost work.
5. AP on the demo's 100 held-out pictures, in which all classes are equally frequent.

    python benchmarks/mining.py                     everything; goes on where it was stopped
    python benchmarks/mining.py --seeds 0 --algorithms random,entropy

Prints a table and writes benchmarks/results/mining.json after every step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import machine, print_table
from maskrcnn_benchmark.apps.predict import Predictor
from maskrcnn_benchmark.apps.train import make_parser, run_training
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.data.synthetic import ensure_shapes_dataset, image_rng
from maskrcnn_benchmark.data.synthetic_scene import SHAPE_NAMES, make_scene
from maskrcnn_benchmark.engine.signals import StopSignals
from maskrcnn_benchmark.utils.files import write_atomically
from maskrcnn_benchmark.ymir.mining.network import NetworkDetector
from maskrcnn_benchmark.ymir.mining.scoring import score_images

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs/demo/mask_rcnn_R_18_FPN_shapes.yaml"
IMAGE_SIZE = 224
NETWORK_SIZE = 160  # pictures are reduced to it, which halves the time
FIRST_SCHEDULE = {"MAX_ITER": 400, "WARMUP_ITERS": 60, "STEPS": (200, 270, 320, 360, 385), "BASE_LR": 0.05}
NEXT_SCHEDULE = {"MAX_ITER": 150, "WARMUP_ITERS": 15, "STEPS": (75, 100, 120, 135), "BASE_LR": 0.025}
NUM_DRAWN, NUM_EMPTY = 2000, 400  # pictures to choose from
RARE, RARE_KEPT = "cross", 0.1
NUM_INITIAL, NUM_POOL, NUM_MINED = 60, 600, 100
EMPTY_SHARE = 2 / 3
NUM_HELD_OUT = 100
# name -> (algorithm, settings)
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "entropy": ("entropy", {}),
    "cald": ("cald", {"cald_variant": "paper"}),
    "aldd": ("aldd", {}),
    "apis": ("apis", {}),
    "cald-ymir": ("cald", {"cald_variant": "ymir"}),
}
SCORE_THRESHOLD, BATCH_SIZE = 0.2, 8


@dataclass(frozen=True)
class Archive:
    """Every picture that there is, and what is on it.

    Args:
        root: folder at which names of pictures begin.
        ann_file: COCO json of all of them.
        scenes: names of the drawn pictures -> how many objects of each class they show.
        empty: names of those without objects.
    """

    root: Path
    ann_file: Path
    scenes: dict[str, list[int]]
    empty: list[str]


def make_archive(data_dir: Path) -> Archive:
    """Draw what is not there yet, and join it in one json."""
    arguments = {"num_images": NUM_DRAWN, "image_size": IMAGE_SIZE}
    img_dir, ann_file = (Path(path) for path in ensure_shapes_dataset(data_dir, split="train", **arguments))
    content = json.loads(ann_file.read_text())
    scenes = {}
    for image in content["images"]:
        image["file_name"] = f"{img_dir.relative_to(data_dir)}/{image['file_name']}"
        scenes[image["file_name"]] = [0] * len(SHAPE_NAMES)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        scenes[names[annotation["image_id"]]][annotation["category_id"] - 1] += 1
    folder = data_dir / f"mining-empty-{IMAGE_SIZE}px"
    folder.mkdir(exist_ok=True)
    empty = [f"{folder.name}/{index:06d}.jpg" for index in range(NUM_EMPTY)]
    for index, name in enumerate(empty):
        if not (data_dir / name).is_file():
            scene = make_scene(image_rng(0, "empty", index), image_size=IMAGE_SIZE)
            cv2.imwrite(str(data_dir / name), scene.background)
        content["images"].append(
            {"id": NUM_DRAWN + 1 + index, "file_name": name, "height": IMAGE_SIZE, "width": IMAGE_SIZE}
        )
    joined = data_dir / "mining-annotations.json"
    write_atomically(str(joined), lambda file: file.write(json.dumps(content).encode()))  # several may run side by side
    return Archive(data_dir, joined, scenes, empty)


def split_archive(archive: Archive, seed: int) -> tuple[list[str], list[str]]:
    """The pictures to begin with, and the pool in no order; every seed has others."""
    rng = np.random.default_rng(seed)
    rare = SHAPE_NAMES.index(RARE)
    kept = [
        name
        for name, counts in archive.scenes.items()
        if sum(counts) > 0 and (rng.random() < RARE_KEPT or counts[rare] == 0)
    ]
    kept = list(rng.permutation(kept))
    num_scenes = round(NUM_POOL * (1 - EMPTY_SHARE))
    pool = kept[NUM_INITIAL : NUM_INITIAL + num_scenes] + archive.empty[: NUM_POOL - num_scenes]
    if len(pool) != NUM_POOL:
        raise ValueError(f"only {len(pool)} pictures for a pool of {NUM_POOL}; raise NUM_DRAWN")
    return kept[:NUM_INITIAL], list(rng.permutation(pool))


def train(
    archive: Archive, val: tuple[str, str], names: Sequence[str], folder: Path, *, weights: Path | None, seed: int
) -> dict[str, float]:
    """Train on these pictures into a folder, from given weights or from scratch; AP on the held-out pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pictures.txt").write_text("\n".join(names) + "\n")
    custom = [
        {
            "name": "shapes_train",
            "img_dir": str(archive.root),
            "ann_file": str(archive.ann_file),
            "list_file": str(folder / "pictures.txt"),
        },
        {"name": "shapes_val", "img_dir": val[0], "ann_file": val[1]},
    ]
    lengths = {f"INPUT.{side}_SIZE_{phase}": NETWORK_SIZE for side in ("MIN", "MAX") for phase in ("TRAIN", "TEST")}
    schedule = FIRST_SCHEDULE if weights is None else NEXT_SCHEDULE
    settings = {
        **lengths,
        **{f"SOLVER.{key}": value for key, value in schedule.items()},
        "SOLVER.CHECKPOINT_PERIOD": 100_000,
        "DATALOADER.NUM_WORKERS": 0,
        "DATASETS.CUSTOM": custom,
        "MODEL.WEIGHT": str(weights or ""),
        "OUTPUT_DIR": str(folder),
        "SEED": 1 + seed,
        "REPORT": False,
    }
    options = [word for key, value in settings.items() for word in (key, str(value))]
    args = make_parser().parse_args(["--config-file", str(CONFIG), "--json-summary", "", *options])
    with StopSignals() as stop, stop.exits():
        figures = run_training(args, defaults, stop)
    return {kind: float(figures[kind]["AP"]) for kind in ("bbox", "segm")}


def score_pool(archive: Archive, pool: Sequence[str], weights: Path, name: str) -> list[float]:
    """A score for each picture of the pool, by the algorithm of this name."""
    algorithm, settings = ALGORITHMS[name]
    predictor = Predictor.from_checkpoint(weights, device="cpu")
    detector = NetworkDetector.from_predictor(predictor, batch_size=BATCH_SIZE, score_threshold=SCORE_THRESHOLD)
    scores: list[float] = []
    for start in range(0, len(pool), BATCH_SIZE):
        # Names below the root: a score is then the same wherever the data lie.
        names = pool[start : start + BATCH_SIZE]
        images = [read_image(archive.root / each) for each in names]
        scores += score_images(algorithm, names, images, detector, **settings)
    return scores


def run_step(archive: Archive, val: tuple[str, str], work: Path, seed: int, name: str) -> dict[str, Any]:
    """One algorithm with one seed, or the first training ("initial"); what was done before is read from its file."""
    folder = work / f"seed{seed}" / name
    done = folder / "step.json"
    if done.is_file():
        return json.loads(done.read_text())
    begin = time.process_time()
    initial, pool = split_archive(archive, seed)
    if name == "initial":
        report: dict[str, Any] = {"AP": train(archive, val, initial, folder, weights=None, seed=seed)}
    else:
        weights = work / f"seed{seed}" / "initial" / "model_final.pth"
        scores = score_pool(archive, pool, weights, name)
        scored = time.process_time() - begin
        order = np.argsort(-np.array(scores), kind="stable")[:NUM_MINED]
        mined = [pool[index] for index in order]
        counts = np.sum([archive.scenes.get(each, [0] * len(SHAPE_NAMES)) for each in mined], axis=0)
        report = {
            "AP": train(archive, val, [*initial, *mined], folder, weights=weights, seed=seed),
            "pictures_with_objects": sum(each in archive.scenes for each in mined),
            "objects": dict(zip(SHAPE_NAMES, counts.tolist(), strict=True)),
            "scoring_cpu_ms_a_picture": round(1e3 * scored / len(pool), 1),
        }
    report["cpu_seconds"] = round(time.process_time() - begin, 1)
    done.write_text(json.dumps(report, indent=2))
    return report


def summarize(steps: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Mean and each seed of every algorithm."""
    rows = {}
    for name, of_seed in steps.items():
        kinds = next(iter(of_seed.values()))["AP"]
        rows[name] = {
            "mean_AP": {k: round(statistics.fmean(step["AP"][k] for step in of_seed.values()), 4) for k in kinds},
            "seeds": {str(seed): step for seed, step in sorted(of_seed.items())},
        }
        pairs = [
            {k: step["AP"][k] - steps["random"][seed]["AP"][k] for k in kinds}
            for seed, step in of_seed.items()
            if seed in steps.get("random", {})
        ]
        if name not in ("random", "initial") and pairs:
            rows[name]["mean_gain_over_random"] = {k: round(statistics.fmean(p[k] for p in pairs), 4) for k in kinds}
    return rows


def show(rows: dict[str, Any]) -> None:
    """Print the table."""
    table = []
    for name, row in rows.items():
        of_seeds = [f"{step['AP']['bbox']:.3f} / {step['AP']['segm']:.3f}" for step in row["seeds"].values()]
        shown = [step.get("pictures_with_objects") for step in row["seeds"].values()]
        mean = f"{row['mean_AP']['bbox']:.3f} / {row['mean_AP']['segm']:.3f}"
        table.append([name, mean, ", ".join(of_seeds), "" if None in shown else ", ".join(map(str, shown))])
    print_table(["mined by", "box / mask AP, mean", "each seed", "pictures with objects"], table)


def main() -> None:
    """Run the steps that are missing; print and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--data-dir", default="datasets/shapes", help="folder of the generated data sets")
    parser.add_argument("--work-dir", default="datasets/mining", help="models and steps; remove it to begin anew")
    parser.add_argument("--out", default="benchmarks/results/mining.json")
    args = parser.parse_args()
    data_dir, work = Path(args.data_dir).resolve(), Path(args.work_dir).resolve()
    archive = make_archive(data_dir)
    val = ensure_shapes_dataset(data_dir, split="val", num_images=NUM_HELD_OUT, image_size=IMAGE_SIZE)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    settings = {
        "annotated": NUM_INITIAL,
        "pool": NUM_POOL,
        "pool_without_objects": round(NUM_POOL * EMPTY_SHARE),
        "mined": NUM_MINED,
        "rare_class": RARE,
        "network_size": NETWORK_SIZE,
        "first_iterations": FIRST_SCHEDULE["MAX_ITER"],
        "next_iterations": NEXT_SCHEDULE["MAX_ITER"],
        "held_out": NUM_HELD_OUT,
    }
    steps: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in seeds:
        for name in ["initial", *args.algorithms.split(",")]:
            steps.setdefault(name, {})[seed] = run_step(archive, val, work, seed, name)
            rows = summarize(steps)
            report = {"machine": machine(), "settings": settings, "rows": rows}
            Path(args.out).write_text(json.dumps(report, indent=2) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
