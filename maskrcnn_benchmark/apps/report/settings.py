"""The part of a report that is about how the run was set up: configuration, manifest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.apps.report.run_folder import RunFolder
from maskrcnn_benchmark.config import CfgNode
from maskrcnn_benchmark.config.defaults import _C as defaults
from maskrcnn_benchmark.utils.nested import flatten

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# Where a run is and what it is called says nothing about what it does.
_PLACES = frozenset({"OUTPUT_DIR", "PATHS_CATALOG"})


@dataclass(frozen=True)
class ConfigDifference:
    """How a run's config differs from the published file that is nearest to it.

    Attributes:
        nearest: path of that file below configs/; "" for the defaults.
        rows: (key, published value, the run's value).
    """

    nearest: str
    rows: list[tuple[str, str, str]]


def build_run_config(run: RunFolder) -> CfgNode | None:
    """The config tree of a run, on this machine's catalogue; None without one."""
    if not run.config:
        return None
    tree = defaults.clone()
    tree.merge_from_other_cfg(CfgNode({key: value for key, value in run.config.items() if key != "PATHS_CATALOG"}))
    return tree


def config_difference(run: RunFolder) -> ConfigDifference | None:
    """Compare with every published config and take the one with the fewest differences; None without a config."""
    if not run.config:
        return None
    own = {key: _plain(value) for key, value in flatten(run.config).items() if key not in _PLACES}
    candidates = {"": _flat_defaults(), **_published()}
    nearest = min(candidates, key=lambda name: (len(_differing(candidates[name], own)), name))
    published = candidates[nearest]
    rows = [(key, shown(published.get(key, "–")), shown(own.get(key, "–"))) for key in _differing(published, own)]
    return ConfigDifference(nearest, rows)


def manifest_rows(run: RunFolder) -> list[tuple[str, str]]:
    """(dotted name, value) of everything in the manifest but the config, which is shown by itself."""
    facts = {key: value for key, value in flatten(run.manifest).items() if ".config.values." not in f".{key}."}
    return [(key, shown(value)) for key, value in facts.items()]


def config_rows(run: RunFolder) -> list[tuple[str, str]]:
    """(key, value) of the whole config."""
    return [(key, shown(value)) for key, value in sorted(flatten(run.config).items())]


@functools.cache
def _published() -> dict[str, dict[str, Any]]:
    """Every config file with all keys; an installed package without the folder has none."""
    return {
        path.relative_to(CONFIGS).as_posix(): _flat_defaults(path)
        for path in sorted(CONFIGS.rglob("*.yaml"))
        if path.is_file()
    }


def _flat_defaults(path: Path | None = None) -> dict[str, Any]:
    tree = defaults.clone()
    if path is not None:
        tree.merge_from_file(str(path))
    return {key: _plain(value) for key, value in flatten(tree).items() if key not in _PLACES}


def _plain(value: Any) -> Any:
    """Tuples as the YAML file has them."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return value


def _differing(published: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in published.keys() | own.keys() if published.get(key) != own.get(key))


def shown(value: Any) -> str:
    """A value for people."""
    if isinstance(value, list):
        return ", ".join(shown(part) for part in value) or "()"
    return "''" if value == "" else str(value)
