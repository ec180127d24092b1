"""glibc, told to keep what it has."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 256 << 20
BLOCK_BYTES_MAX = 32 << 20
"""The largest that glibc takes."""


def keep_memory() -> bool:
    """Makes malloc keep freed blocks. Else a reply of a megabyte is a fresh mapping each time, page by page.

    False where the C library is not glibc: nothing is changed there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES_MAX)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
