"""More than a thousand damaged and hostile files: each is used, or named in one sentence, and nothing in it runs.

The core suite takes a few of each kind and all that ever were found to fail (corpus/); with --all come the rest. Which
files these are depends on nothing but the numbers in this file. `coverage_guided.py` looks for further ones.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.fuzz import seeds, structure
from tests.fuzz.jail import Jail
from tests.fuzz.mutate import as_json, as_yaml, mutate_bytes, mutate_keys, mutate_tree, rng_of

FEW, MANY = {"config": 40, "weights": 60, "annotations": 66, "image": 60}, 300
CORPUS = Path(__file__).parent / "corpus"
AREAS = ("config", "weights", "annotations", "image")
_LONGEST_SENTENCE = 1600


class Arena:
    """A jail with sound files of one area, their mutations, and what became of those.

    Args:
        area: config, weights, annotations or image.
        folder: where all of it lies, inside that of the jail.
        jail: where it is used.
    """

    def __init__(self, area: str, folder: Path, jail: Jail) -> None:
        self.area, self.folder, self.outcomes = area, folder, collections.Counter()
        self.sound: dict[str, tuple[dict[str, Any], bytes]] = getattr(self, f"_write_{area}")()
        self.jail = jail
        jail.prepare([job for job, _ in self.sound.values()])

    def _write_config(self) -> dict[str, Any]:
        self.trees, self.defaults = seeds.config_trees(), seeds.default_tree()
        texts = {name: text.encode() for name, text in seeds.config_texts().items()}
        for name, text in texts.items():
            self._path(name).write_bytes(text)
        return {name: ({"area": "config", "path": str(self._path(name))}, text) for name, text in texts.items()}

    def _write_files(self, write: Callable[[Path], list[Path]]) -> dict[str, Any]:
        (self.folder / "sound").mkdir()
        files = write(self.folder / "sound")
        return {path.name: ({"area": self.area, "path": str(path)}, path.read_bytes()) for path in files}

    def _write_weights(self) -> dict[str, Any]:
        return self._write_files(seeds.write_weights)

    def _write_image(self) -> dict[str, Any]:
        return self._write_files(seeds.write_images)

    def _write_annotations(self) -> dict[str, Any]:
        sound = {}
        for kind in seeds.ANNOTATION_FILES:
            entry, path = seeds.write_annotations(kind, self.folder / kind)
            sound[kind] = ({"area": "annotations", "path": str(path), "kind": kind, "entry": entry}, path.read_bytes())
        return sound

    def _path(self, name: str) -> Path:
        return self.folder / f"changed_{name.replace('/', '_')}"

    def mutation(self, number: int) -> tuple[str, bytes]:
        """The name of a sound file, and what mutation ``number`` makes of it."""
        names = sorted(self.sound)
        name, rng = names[number % len(names)], rng_of(self.area, number)
        whole, other = self.sound[name][1], self.sound[names[(number * 7 + 1) % len(names)]][1]
        change = self._structured(name, number // len(names))
        return name, change(whole, rng) if change else mutate_bytes(whole, rng, other=other)

    def _structured(self, name: str, round_: int) -> Callable[[bytes, np.random.Generator], bytes] | None:
        """The change that knows what is in the file; None: one of bytes."""
        if self.area == "config" and round_ % 4:
            if round_ % 4 == 1:
                return lambda _, rng: as_yaml(mutate_tree(self.trees[name], rng))
            return lambda _, rng: as_yaml(mutate_keys(self.trees[name], self.defaults, rng))
        if round_ % 4 == 0:
            return None
        suffix = Path(self.sound[name][0]["path"]).suffix
        if suffix == ".json":
            return lambda whole, rng: as_json(mutate_tree(json.loads(whole), rng))
        if suffix == ".yaml":
            return lambda whole, rng: as_yaml(mutate_tree(yaml.safe_load(whole), rng))
        if name in ("own.pth.own", "published.pth"):
            return structure.mutate_zip
        known = {".png": "png", ".jpg": "jpeg", ".packed": "packed", ".pkl": "pickle", ".xml": "words", ".txt": "words"}
        return getattr(structure, f"mutate_{known[suffix]}") if suffix in known else None

    def check(self, name: str, content: bytes, what: str) -> None:
        """Use a changed file, and assert that it was used or named."""
        job, whole = self.sound[name]
        path = Path(job["path"]) if self.area == "annotations" else self._path(name)
        path.write_bytes(content)
        answer = self.jail.run({**job, "path": str(path)})
        if self.area == "annotations":
            path.write_bytes(whole)
        outcome, message = answer["outcome"], answer["message"]
        self.outcomes[outcome] += 1
        assert outcome in ("used", "named"), f"{what}: {outcome}: {message}\n{answer.get('trace', '')}"
        if outcome == "named":
            names_it = path.name in message or str(self.folder) in message or self.area == "config"
            assert names_it, f"{what}: the message does not say which file: {message}"
            assert len(message) < _LONGEST_SENTENCE, what
            assert message, what
        assert not (Path.cwd() / "pwned").exists(), what

    def check_alias(self, path: Path) -> None:
        """Use a file of the corpus, whose name begins with that of the sound file that it stems from."""
        name = next(name for name in self.sound if path.name.startswith(f"{name.replace('/', '_')}--"))
        self.check(name, path.read_bytes(), path.name)


@pytest.fixture(params=AREAS)
def arena(request: pytest.FixtureRequest, jail: Jail, cell: Path) -> Arena:
    return Arena(request.param, cell, jail)


def test_a_few_of_each_kind(arena: Arena) -> None:
    for name, (job, _) in arena.sound.items():
        answer = arena.jail.run(job)
        assert answer["outcome"] == "used" or arena.area == "image", f"the sound file {name}: {answer}"
    for path in sorted((CORPUS / arena.area).glob("*--*")):
        arena.check_alias(path)
    for number in range(FEW[arena.area]):
        name, content = arena.mutation(number)
        arena.check(name, content, f"{arena.area} {number} ({name})")
    assert min(arena.outcomes["used"], arena.outcomes["named"]) > 3, arena.outcomes


@pytest.mark.slow
def test_a_thousand(arena: Arena) -> None:
    """300 of each of the four areas."""
    for number in range(FEW[arena.area], FEW[arena.area] + MANY):
        name, content = arena.mutation(number)
        arena.check(name, content, f"{arena.area} {number} ({name})")
    assert min(arena.outcomes["used"], arena.outcomes["named"]) > MANY / 20, arena.outcomes


def test_the_jail_holds(jail: Jail) -> None:
    """What escapes, crashes, dies or takes all memory is told: the test of the tests."""
    jail.prepare([{"area": "escape", "path": "fine"}])
    expected = {"system": "escaped", "write": "escaped", "socket": "escaped", "crash": "crashed", "fault": "died"}
    expected |= {"named": "named", "fine": "used", "memory": "crashed"}
    found = {what: jail.run({"area": "escape", "path": what})["outcome"] for what in expected}
    assert found == expected
    assert not list(jail.folder.glob("**/pwned"))
