"""Freed memory stays with the process: training on a processor asks for the same large tensors in every step, and to
take them anew from the system, page by page, can cost as much time as the arithmetic (docs/training.md)."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_MOST, _GROW = 2**31 - 1, 2**28  # bytes; mallopt takes an int


def keep_freed_memory() -> bool:
    """Large blocks come from the C library's heap, which is not given back. False where that is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(
        library.mallopt(option, value) == 1
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _GROW))
    )
