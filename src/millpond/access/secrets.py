"""Secrets: made from 256 random bits, kept only as their SHA-256."""

from __future__ import annotations

import hashlib
import secrets

TOKEN_PREFIX = "mp_"  # noqa: S105
_SHOWN = len(TOKEN_PREFIX) + 6
_LONGEST = 256


def new_secret() -> str:
    """A new secret of 43 characters that may stand in a URL."""
    return secrets.token_urlsafe(32)


def new_token() -> str:
    """A new access token: "mp_" and 43 characters."""
    return TOKEN_PREFIX + new_secret()


def shown_prefix(token: str) -> str:
    """The part of a token by which its owner recognises it; 36 of its 256 random bits."""
    return token[:_SHOWN]


def digest(secret: str) -> str:
    """The SHA-256 of a secret in hexadecimal. With 256 random bits it needs neither salt nor stretching.

    A text longer than any secret has the digest of its beginning only, so that hashing it costs little.
    """
    return hashlib.sha256(secret[:_LONGEST].encode("utf-8", "surrogateescape")).hexdigest()
