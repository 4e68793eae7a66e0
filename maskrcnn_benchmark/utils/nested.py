"""Nested dicts by dotted names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts and lists of dicts by their dotted names; an empty dict has none."""
    if isinstance(tree, list) and tree and all(isinstance(each, Mapping) for each in tree):
        tree = {str(index): each for index, each in enumerate(tree)}
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return leaves
