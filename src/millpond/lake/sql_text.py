"""How each engine's SQL writes names and values. What is the same everywhere is written where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from millpond.core.errors import DefinitionError, SettingsError
from millpond.core.names import did_you_mean
from millpond.core.time import format_instant
from millpond.lake.schema import literal, quoted


@dataclass(frozen=True)
class SqlText:
    """The words of one dialect.

    Attributes:
        mark: What stands around a name, doubled inside it.
        backslashes: Whether a backslash in a string escapes what follows.
        instant: The word before an instant's text.
        inlined: The words after the name of a common table expression that is not to be computed by itself.
    """

    mark: Literal['"', "`"]
    backslashes: bool
    instant: str
    inlined: str

    def name(self, name: str) -> str:
        """An identifier."""
        return quoted(name) if self.mark == '"' else f"`{name.replace('`', '``')}`"

    def names(self, names: Any) -> str:
        """Identifiers, with commas between."""
        return ", ".join(map(self.name, names))

    def text(self, text: str) -> str:
        """A string."""
        if not self.backslashes:
            return literal(text)
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def value(self, value: Any) -> str:
        """A number, a string, a boolean, a date or an aware datetime.

        Raises:
            DefinitionError: A datetime names no time zone.
        """
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise DefinitionError(
                    f"{value} names no time zone", hint="give an aware datetime, such as one with UTC"
                )
            return f"{self.instant} {self.text(format_instant(value))}"
        if isinstance(value, date):
            return f"DATE {self.text(value.isoformat())}"
        if isinstance(value, float):
            return f"CAST({self.text(repr(value))} AS DOUBLE)"
        if isinstance(value, int):
            return str(value)
        return self.text("null" if value is None else str(value))


_DIALECTS = {
    "duckdb": SqlText(mark='"', backslashes=False, instant="TIMESTAMPTZ", inlined="AS NOT MATERIALIZED"),
    "spark": SqlText(mark="`", backslashes=True, instant="TIMESTAMP_LTZ", inlined="AS"),
}


def sql_text(dialect: str) -> SqlText:
    """The words of a dialect.

    Raises:
        SettingsError: It is not known.
    """
    if dialect not in _DIALECTS:
        raise SettingsError(
            f"There is no SQL for the engine {dialect!r}", hint=did_you_mean(dialect, _DIALECTS, noun="engines")
        )
    return _DIALECTS[dialect]
