"""The prediction form: one field a request column, read back with errors beside the fields they are about."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from millpond.console.rendering import sentence
from millpond.core.errors import MillpondError
from millpond.core.time import format_instant
from millpond.platform.read_models import RequestField

#: Name of the field with the instant at which features are looked up; no column can be called so.
AS_OF = "__as_of"

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")
_INT64 = 1 << 63


@dataclass(frozen=True)
class FormField:
    """A field as it is drawn.

    Attributes:
        name: The request column.
        kind: "bool", "int64", "float64", "string" or "instant".
        required: Whether it must be filled in.
        role: "key", "input" or "request".
        text: What stands in it.
        choices: Suggestions.
        description: Shown below it.
        error: What is wrong with what stands in it.
    """

    name: str
    kind: str
    required: bool
    role: str
    text: str
    choices: tuple[str, ...] = ()
    description: str = ""
    error: str = ""


@dataclass(frozen=True)
class Filled:
    """A form that was sent.

    Attributes:
        fields: As they are drawn again.
        row: Column -> value, without those left empty; an instant is an aware datetime.
        as_of: Instant at which features are looked up; None means now.
        as_of_text: What stood in that field.
        problems: What is wrong and belongs to no field.
    """

    fields: tuple[FormField, ...]
    row: Mapping[str, Any]
    as_of: datetime | None
    as_of_text: str = ""
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.problems and not any(field.error for field in self.fields)


def blank(request: Sequence[RequestField]) -> Filled:
    """The form as it is first shown: with the examples filled in."""
    fields = tuple(
        FormField(f.name, f.type, f.required, f.role, _text(f.example), f.choices, f.description) for f in request
    )
    return Filled(fields, {}, None)


def fill(request: Sequence[RequestField], sent: Mapping[str, str]) -> Filled:
    """Read what was sent. Text is trimmed; an empty field is no value; an instant without offset is UTC."""
    row: dict[str, Any] = {}
    fields: list[FormField] = []
    for drawn in blank(request).fields:
        text, error = sent.get(drawn.name, "").strip(), ""
        if text:
            try:
                row[drawn.name] = _read(drawn.kind, text)
            except ValueError as problem:
                error = f"{drawn.name}: {problem}."
        elif drawn.required:
            error = f"{drawn.name} is needed."
        fields.append(replace(drawn, text=text, error=error))
    as_of_text = sent.get(AS_OF, "").strip()
    try:
        as_of, problems = _read("instant", as_of_text) if as_of_text else None, ()
    except ValueError as problem:
        return Filled(tuple(fields), row, None, as_of_text, (f"Features as of: {problem}.",))
    return Filled(tuple(fields), row, as_of, as_of_text, problems)


def refused(form: Filled, error: MillpondError) -> Filled:
    """The form with an error of the platform: beside the field that its `where` names, else above all."""
    said = in_words(error)
    named = set(re.findall(r"\w+", error.where))
    fields = tuple(replace(field, error=said) if field.name in named else field for field in form.fields)
    if fields == form.fields:
        return replace(form, problems=(said,))
    return replace(form, fields=fields)


def in_words(error: MillpondError) -> str:
    """An error as one line: what is wrong, and what to do."""
    return f"{error.what} {sentence(error.hint)}".strip()


def _text(example: Any) -> str:
    if example is None:
        return ""
    if isinstance(example, bool):
        return "true" if example else "false"
    if isinstance(example, datetime):
        return format_instant(example).removesuffix("Z")  # browsers' date fields take no offset
    return str(example)


def _read(kind: str, text: str) -> Any:
    if kind == "int64":
        return _read_int(text)
    if kind == "float64":
        return _read_float(text)
    if kind == "bool":
        if text.lower() not in _YES + _NO:
            raise ValueError(f"{text!r} is neither yes nor no")
        return text.lower() in _YES
    if kind == "instant":
        return _read_instant(text)
    return text


def _read_int(text: str) -> int:
    try:
        whole = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
    if not -_INT64 <= whole < _INT64:
        raise ValueError(f"{text} is too large")
    return whole


def _read_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _read_instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'{text!r} is not a date and time such as "2013-12-01 08:00"') from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
