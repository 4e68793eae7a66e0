"""Keep freed memory inside the process on Linux."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1  # names and numbers of glibc's malloc.h
M_MMAP_MAX = -4


def keep_pages() -> bool:
    """Tell glibc's malloc to keep freed blocks instead of giving their pages back.

    A network on the CPU frees and allocates the same large blocks at every step; by default each comes fresh from the
    kernel and is faulted in page by page, which costs a quarter of the time and more. Same effect as the environment
    variables MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_, which act only when set before the start.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # musl has no mallopt, others have one that returns 0.
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
