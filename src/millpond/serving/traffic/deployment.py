"""Which version answers a request."""

from __future__ import annotations

import random
from typing import NamedTuple
from zlib import crc32

LIVE, CANARY, SHADOW = "live", "canary", "shadow"

_WORD = 0xFFFFFFFF


class Deployment(NamedTuple):
    """The versions that answer for a model; a value, changed only as a whole.

    Attributes:
        model: The model's name.
        live: The version that answers.
        canary: The version that answers a share of the requests, or None.
        share: That share.
        shadows: Versions that are asked too, after the answer was sent, and whose answers are only compared and kept.
        compares: Whether the live version is asked for the canary's rows as well, after the answer, to compare.
        salt: 32 bits that make every release choose other entities; the same during all of its steps.
        epoch: Names the step of the release, "" outside of one; what is counted is counted apart for each.
        loaded: Whether the model answers at all.
    """

    model: str
    live: int
    canary: int | None = None
    share: float = 0.0
    shadows: tuple[int, ...] = ()
    compares: bool = False
    salt: int = 0
    epoch: str = ""
    loaded: bool = True

    def choose(self, key: bytes | str | None) -> tuple[int, str]:
        """The version for a request, and its variant: "live" or "canary".

        The same key gives the same version in every process while the deployment lasts, and a key whose version is
        the canary keeps it when the share grows. None draws at random.
        """
        canary = self.canary
        if canary is None:
            return self.live, LIVE
        drawn = random.random() if key is None else position(key, self.salt)  # noqa: S311 - not a secret
        return (canary, CANARY) if drawn < self.share else (self.live, LIVE)


def position(key: bytes | str, salt: int) -> float:
    """Where a key lies in [0, 1): evenly spread, the same in every process, and independent between salts.

    CRC-32 alone is linear, so that keys that are in a row would stay in a row; the mixing is the finalizer of
    MurmurHash3 (Appleby, public domain).

    Args:
        key: Text counts as its UTF-8.
        salt: 32 bits.
    """
    word = crc32(key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key) ^ salt
    word = ((word ^ word >> 16) * 0x85EBCA6B) & _WORD
    word = ((word ^ word >> 13) * 0xC2B2AE35) & _WORD
    return (word ^ word >> 16) / 4294967296.0
