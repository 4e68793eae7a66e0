"""The keys of the mining template."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode
from maskrcnn_benchmark.ymir.mining.consistency import VARIANTS
from maskrcnn_benchmark.ymir.settings import JobSettings
from maskrcnn_benchmark.ymir.values import to_number

ALGORITHMS = ("random", "entropy", "aldd", "cald", "apis")


@dataclass(frozen=True)
class MiningSettings:
    """How candidates are scored.

    Args:
        algorithm: one of `ALGORITHMS`.
        confidence_threshold: only detections with a higher score count; 0 to 1. For entropy, cald and apis.
        cald_variant: one of `consistency.VARIANTS`.
        class_weights: of aldd, in the order of the classes; those that are not named count 1.
        batch_size: most pictures in one forward pass.
        num_workers: threads that decode pictures.
    """

    algorithm: str
    confidence_threshold: float
    cald_variant: str
    class_weights: tuple[float, ...]
    batch_size: int
    num_workers: int

    @classmethod
    def from_settings(cls, settings: JobSettings) -> MiningSettings:
        """Read the keys and check them.

        Raises:
            JobError: a name is not known, or a number out of its range.
        """
        threshold = settings.number("conf_threshold", 0.2)
        if not 0 <= threshold < 1:
            raise JobError(ReturnCode.CONFIG, f"conf_threshold must be from 0 to below 1, got {threshold:g}")
        return cls(
            algorithm=_one_of(settings, "mining_algorithm", ALGORITHMS, "entropy"),
            confidence_threshold=threshold,
            cald_variant=_one_of(settings, "cald_variant", VARIANTS, VARIANTS[0]),
            class_weights=_class_weights(settings),
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
        )


def _one_of(settings: JobSettings, key: str, known: tuple[str, ...], default: str) -> str:
    name = settings.text(key, default).lower()
    if name not in known:
        raise JobError(ReturnCode.CONFIG, f"{key} {name!r} is not known; there are {', '.join(known)}")
    return name


def _class_weights(settings: JobSettings) -> tuple[float, ...]:
    key = "class_distribution_scores"
    weights = tuple(to_number(value, key) for value in settings.names(key))
    if any(weight < 0 for weight in weights):
        raise JobError(ReturnCode.CONFIG, f"{key} must not be negative, got {', '.join(f'{w:g}' for w in weights)}")
    classes = settings.class_names
    if len(weights) > len(classes):
        raise JobError(
            ReturnCode.CONFIG,
            f"{key} has {len(weights)} for {len(classes)} class(es) {', '.join(classes)}; one each is enough",
        )
    return weights
