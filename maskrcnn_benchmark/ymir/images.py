"""Candidates as pixels, read ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from maskrcnn_benchmark.data.image_io import read_image
from maskrcnn_benchmark.ymir.codes import JobError, ReturnCode

_BATCHES_AHEAD = 2


def read_candidate(path: str) -> np.ndarray:
    """Decode an image: uint8 [H, W, 3], BGR, as it is stored.

    Raises:
        JobError: it is missing or cannot be decoded.
    """
    try:
        return read_image(path)
    except FileNotFoundError as error:
        raise JobError(ReturnCode.DATASET, f"image {path} does not exist") from error
    except (ValueError, OSError) as error:
        raise JobError(ReturnCode.ANNOTATION, str(error)) from error


def read_batches(
    paths: Sequence[str], batch_size: int, num_workers: int
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Paths and pixels of so many images at a time, in their order.

    Args:
        paths: of the images.
        batch_size: images at a time; fewer in the last one.
        num_workers: threads that read while the network computes; 0: none.

    Raises:
        JobError: see `read_candidate`.
    """
    batches = [list(paths[start : start + batch_size]) for start in range(0, len(paths), batch_size)]
    if num_workers < 1:
        yield from ((batch, [read_candidate(path) for path in batch]) for batch in batches)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        waiting: deque[tuple[list[str], list[Future[np.ndarray]]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, [pool.submit(read_candidate, path) for path in batch]))
                if len(waiting) > _BATCHES_AHEAD:
                    yield _collect(*waiting.popleft())
            while waiting:
                yield _collect(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(paths: list[str], pending: list[Future[np.ndarray]]) -> tuple[list[str], list[np.ndarray]]:
    return paths, [future.result() for future in pending]
