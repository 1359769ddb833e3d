"""Where in the user's files an object was declared, and what is wrong with it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Place("<unknown>", 0)


def caller() -> Place:
    """The nearest line on the stack that is not Millpond's own (nor made up by `dataclasses`)."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_PACKAGE, "<")):
            return Place(file, frame.f_lineno)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return NOWHERE


@dataclass(frozen=True)
class Problem:
    """One fault of one declared object.

    Attributes:
        place: File and line of the declaration.
        subject: The object, such as `Features "airport_traffic"`.
        field: The argument that is wrong, such as `over`.
        found: What is wrong, with the value that was found.
        hint: What is allowed, with a close match where there is one.
    """

    place: Place
    subject: str
    field: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.subject}, {self.field}: {self.found}"
        return f"{text} ({self.hint})" if self.hint else text
