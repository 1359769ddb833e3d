"""The C library's allocator, told to suit a process that serves large requests now and then, for weeks."""

from __future__ import annotations

import ctypes

#: Blocks from this size on are mapped by themselves, and given back when they are freed. Left alone, glibc moves its
#: threshold up to the largest block that was ever freed.
MAPPED_BYTES = 4 << 20

#: Free memory at the end of the heap that is kept for what comes next. To have a page from the system takes a fault and
#: its clearing, which was a fifth to almost half of the processor time of requests with 1,000 rows, when all was given
#: back at once.
KEPT_BYTES = 64 << 20

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def give_back_large_blocks() -> bool:
    """Have memory that the largest requests took returned to the system when they are answered.

    Otherwise bodies of some megabytes, a few at once, leave a heap behind that is mostly holes, as small blocks between
    them outlive them: memory that is free, and that no other process can have. Blocks of some hundred kilobytes, those
    of a thousand rows, come from the heap, where the next request finds them again.

    Returns:
        Whether the allocator is glibc's, and does so from now on; others are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(_MMAP_THRESHOLD, MAPPED_BYTES)) and bool(set_option(_TRIM_THRESHOLD, KEPT_BYTES))
