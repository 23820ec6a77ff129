"""Memory that is freed stays with the process, as it does with a GPU's allocator."""

import ctypes

# Of glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """From now on, in this process.

    By default glibc gives each large block back to the kernel, and the next one, as ZeRO-3's gathered parameters are,
    costs CPU time for its new pages: a matter of this allocator, not of the work that is measured. Without effect where
    the C library is another.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for setting, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**29)):
        mallopt(setting, value)
