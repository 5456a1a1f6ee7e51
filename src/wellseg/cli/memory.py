"""How this process asks the system for memory."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next request; returns whether it could be told to.

    Left alone, glibc gives each large tensor back to the system and has the next one cleared page by page, which takes a
    fifth to a half of the time of a network on a CPU. It is a setting of the process, so commands make it, not the library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # another C library
        return False
    # Older versions take 32 MiB at most. Setting either switches off what adapts them: both, or none.
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in (2**30, 2**25))
    return kept and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
