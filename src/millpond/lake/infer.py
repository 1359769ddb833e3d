"""What the text of a source means: types are read off all of its values, not off the first few.

A column of text is a boolean (true, false), an integer, a number, a date, or an instant, where every value that is
not null is one; else it is text. Integers with leading zeros (postal codes) and those over 64 bits stay text. A
timestamp without an offset is an instant only in a table that declares its zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millpond.lake.ports import Engine
from millpond.lake.schema import literal, quoted

_SAMPLE_ROWS = 5_000

_WHOLE = r"(0|[1-9][0-9]*)"
_INTEGER = r"\s*[+-]?[0-9]+\s*"
_SHORT_INTEGER = r"\s*[+-]?(0|[1-9][0-9]{0,17})\s*"  # fits in 64 bits whatever its digits
_LONG_INTEGER = r"\s*[+-]?[1-9][0-9]{18}\s*"
_NUMBER = (
    rf"\s*[+-]?(({_WHOLE}[.][0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?|{_WHOLE}[eE][+-]?[0-9]+"
    r"|0|[1-9][0-9]{0,14}|(?i:nan|inf|infinity))\s*"
)
_DATE = r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*"
_TIME = r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
_NAIVE = rf"\s*[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]{_TIME}\s*"
_ZONED = rf"\s*[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T]{_TIME}\s*(Z|UTC|[+-][0-9]{{2}}(:?[0-9]{{2}})?)\s*"

#: Kinds that text may turn out to be, the narrowest first. "naive" is a timestamp without an offset.
KINDS = ("bool", "int", "float", "date", "instant", "naive", "stamp")


def _matches(column: str, pattern: str) -> str:
    return f"regexp_full_match({column}, {literal(pattern)})"


def is_kind(column: str, kind: str) -> str:
    """A condition: the text in `column` (an SQL expression) is of a kind. False or null where the text is null."""
    if kind == "bool":
        return f"lower(trim({column})) IN ('true', 'false')"
    if kind == "int":
        longer = f"{_matches(column, _LONG_INTEGER)} AND TRY_CAST({column} AS BIGINT) IS NOT NULL"
        return f"({_matches(column, _SHORT_INTEGER)} OR ({longer}))"
    if kind == "float":
        value = f"TRY_CAST({column} AS DOUBLE)"  # a number over the range of float64 would become infinite
        return f"({_matches(column, _NUMBER)} AND (NOT isinf({value}) OR contains(lower({column}), 'inf')))"
    if kind == "date":
        return f"({_matches(column, _DATE)} AND TRY_CAST({column} AS DATE) IS NOT NULL)"
    if kind == "instant":
        return f"({_matches(column, _ZONED)} AND TRY_CAST({column} AS TIMESTAMPTZ) IS NOT NULL)"
    if kind == "naive":
        return f"({_matches(column, _NAIVE)} AND TRY_CAST({column} AS TIMESTAMP) IS NOT NULL)"
    return f"({is_kind(column, 'instant')} OR {is_kind(column, 'naive')})"


def survivors_sql(relation: str, candidates: Mapping[str, Sequence[str]], *, sample: bool) -> str:
    """A query with one row: for each column, whether it has values, and whether each of its candidates holds for all.

    Args:
        relation: What to read.
        candidates: Kinds still possible, by column.
        sample: Whether to look at the first rows only.
    """
    parts = []
    for name, kinds in candidates.items():
        column = quoted(name)
        parts.append(f"count({column}) > 0")
        parts += [
            f"coalesce(bool_and({is_kind(column, kind)}) FILTER (WHERE {column} IS NOT NULL), true)" for kind in kinds
        ]
    source = f"(SELECT * FROM {relation} LIMIT {_SAMPLE_ROWS})" if sample else relation
    return f"SELECT {', '.join(parts)} FROM {source}"


def infer(engine: Engine, relation: str, names: Sequence[str]) -> dict[str, str]:
    """The kind of each text column: one of `KINDS`, "string", or "null" where it has no values.

    The first rows strike out most candidates. Then all rows are asked for the narrowest that is left; only columns
    for which it fails are asked again.
    """
    kinds: dict[str, str] = {}
    candidates = _ask(engine, relation, dict.fromkeys(names, KINDS), sample=True)[1]
    while open_ := {name: left[:1] for name, left in candidates.items() if name not in kinds}:
        filled, held = _ask(engine, relation, open_, sample=False)
        for name in open_:
            if held[name] or not candidates[name]:
                kinds[name] = (held[name] or ["string"])[0] if name in filled else "null"
            candidates[name] = candidates[name][1:]
    return kinds


def _ask(
    engine: Engine, relation: str, candidates: Mapping[str, Sequence[str]], *, sample: bool
) -> tuple[set[str], dict[str, Sequence[str]]]:
    """The columns that have values, and the candidates that hold for all of their values."""
    filled: set[str] = set()
    left: dict[str, Sequence[str]] = {}
    if not candidates:
        return filled, left
    answers = iter(engine.rows(survivors_sql(relation, candidates, sample=sample))[0])
    for name, kinds in candidates.items():
        if next(answers):
            filled.add(name)
        left[name] = [kind for kind in kinds if next(answers)]
    return filled, left


def cast_sql(column: str, kind: str, zone: str | None) -> str:
    """Text as a kind; null where it is not one.

    A local time that occurs twice (clocks set back) is taken as the later instant; one that never occurs (clocks set
    forward) as if the clock had not been set.
    """
    if kind in ("string", "null"):
        return column
    if kind == "bool":
        return f"TRY_CAST(trim({column}) AS BOOLEAN)"
    if kind == "int":
        return f"CASE WHEN {_matches(column, _INTEGER)} THEN TRY_CAST({column} AS BIGINT) END"
    if kind == "float":
        return f"TRY_CAST({column} AS DOUBLE)"
    if kind == "date":
        return f"TRY_CAST({column} AS DATE)"
    if kind == "binary":
        return f"encode({column})"
    zoned = f"TRY_CAST({column} AS TIMESTAMPTZ)"
    if kind == "instant" and zone is None:
        return f"CASE WHEN {_matches(column, _ZONED)} THEN {zoned} END"
    local = f"timezone({literal(zone or 'UTC')}, TRY_CAST({column} AS TIMESTAMP))"
    return f"CASE WHEN {_matches(column, _ZONED)} THEN {zoned} ELSE {local} END"
