"""Names of declared objects and columns, and close matches for misspelt ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

#: Reserved for columns that Millpond adds to tables and frames of its own.
RESERVED_PREFIX = "__"


def is_name(text: str) -> bool:
    """Whether `text` may name a table, entity, view, feature or model.

    Lower-case ASCII letters, digits and single underscores, starting with a letter, at most 63 characters.
    A double underscore is kept for joining a view's name with a feature's.
    """
    return _NAME.fullmatch(text) is not None and RESERVED_PREFIX not in text


NAME_RULE = (
    "a name is lower-case letters, digits and single underscores, starts with a letter, and has at most 63 characters"
)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` probably meant, or None where nothing is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, noun: str = "names") -> str:
    """A hint for an unknown `word`: the close match if there is one, and what exists (the first twelve)."""
    options = sorted(known)
    match = closest(word, options)
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    listing = f"{noun}: {shown}" if options else f"there are no {noun} yet"
    return f"did you mean {match!r}? {listing}" if match else listing
