"""The one exception tree. Each error says what happened, where, and what to do about it.

    MillpondError
    ├── DefinitionError         a declared object is wrong; found before anything runs
    ├── SettingsError           millpond.toml, a profile or the environment is wrong
    ├── MissingExtra            an optional part is needed and not installed
    ├── NotFound                no such table, snapshot, model, version, prediction, project
    ├── DataError               data cannot be taken as it is: file, type, timestamp, key
    │   └── SchemaMismatch      the columns of the data and of the table disagree
    ├── CheckFailed             a blocking data check found violations
    ├── TrainingError           a model cannot be trained or evaluated on this data
    ├── VersionRefused          a model version was not accepted by the store
    ├── StoreMismatch           what is stored was written under another schema
    ├── RequestError            a request is malformed
    │   └── PayloadTooLarge     a request body is over the limit
    ├── AccessDenied            an identity may not do this
    │   └── NotAuthenticated    no identity, or an invalid token
    ├── Conflict                somebody else changed the same thing first      (retryable)
    └── Unavailable             a part is not running or not answering          (retryable)
        ├── Overloaded          too many requests wait already                  (retryable)
        └── DeadlineExceeded    no answer within the time that was given        (retryable)

`retryable` is a class attribute: running the same call again may succeed without any change by the user.
HTTP status codes and exit codes are mapped in the faces (`server`, `cli`), never here.
"""

from __future__ import annotations

from typing import ClassVar


class MillpondError(Exception):
    """Base of every error that Millpond raises on purpose.

    Args:
        what: One sentence: what is wrong, with the value that was found.
        where: The place: a file and line, a table and column, an object and field.
        hint: What to do next, or what is allowed.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.hint))

    def to_dict(self) -> dict[str, object]:
        """The error as plain data, for JSON output and HTTP bodies."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "hint": self.hint,
            "retryable": self.retryable,
        }


def _rebuild(kind: type[MillpondError], what: str, where: str, hint: str) -> MillpondError:
    return kind(what, where=where, hint=hint)


class DefinitionError(MillpondError):
    """A declared object is wrong."""


class SettingsError(MillpondError):
    """`millpond.toml`, a profile or the environment is wrong."""


class MissingExtra(MillpondError):
    """An optional part is needed and not installed; the hint names the extra."""


class NotFound(MillpondError):
    """The named thing does not exist."""


class DataError(MillpondError):
    """Data cannot be taken as it is."""


class SchemaMismatch(DataError):
    """The columns of the data and of the table disagree."""


class CheckFailed(MillpondError):
    """A blocking data check found violations; nothing downstream was written."""


class TrainingError(MillpondError):
    """A model cannot be trained or evaluated on this data."""


class VersionRefused(MillpondError):
    """A model version was not accepted by the store."""


class StoreMismatch(MillpondError):
    """What is stored was written under another schema, and is not read as if it were of this one."""


class RequestError(MillpondError):
    """A request is malformed."""


class PayloadTooLarge(RequestError):
    """A request body is over the limit."""


class AccessDenied(MillpondError):
    """The identity may not do this."""


class NotAuthenticated(AccessDenied):
    """No identity was given, or its token is not valid."""


class Conflict(MillpondError):
    """Somebody else changed the same thing first."""

    retryable = True


class Unavailable(MillpondError):
    """A part is not running or not answering."""

    retryable = True


class Overloaded(Unavailable):
    """Too many requests wait already; ask again in a moment."""


class DeadlineExceeded(Unavailable):
    """There was no answer within the time that was given."""
