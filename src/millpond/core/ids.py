"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A new identifier such as "p_06c8x...": 48 bits of milliseconds, then 80 random bits, in base 32 (Crockford).

    Safe across threads and processes. Sorts by creation time, to the millisecond.
    """
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    digits = ""
    for _ in range(26):
        number, rest = divmod(number, 32)
        digits = _ALPHABET[rest] + digits
    return f"{prefix}_{digits}"
