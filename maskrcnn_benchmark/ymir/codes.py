"""What the platform is told of a job that fails."""

from __future__ import annotations

from enum import IntEnum


class ReturnCode(IntEnum):
    """The platform's numbers; it shows a sentence of its own for each."""

    OK = 0
    CONFIG = 300001
    DATASET = 300002
    ANNOTATION = 300003
    """An image or an annotation is not in the format it should be in."""
    WEIGHTS = 300004
    OBJECT_TYPE = 300005
    GPU_MISMATCH = 300101
    """The GPU, its driver and the CUDA of the image do not go together."""
    NO_GPU = 300102
    OUT_OF_MEMORY = 300103
    NAN = 300201
    NETWORK = 300301
    OTHER = 160004


class JobError(Exception):
    """A job cannot go on.

    Args:
        code: what the platform is told.
        message: one sentence that names the thing and the remedy.
    """

    def __init__(self, code: ReturnCode, message: str) -> None:
        super().__init__(message)
        self.code = code
