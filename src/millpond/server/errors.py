"""Errors as HTTP answers: the only place where they are given a status."""

from __future__ import annotations

from millpond.core import errors

_STATUS: tuple[tuple[type[errors.MillpondError], int], ...] = (
    (errors.NotFound, 404),
    (errors.PayloadTooLarge, 413),
    (errors.RequestError, 422),
    (errors.DataError, 422),
    (errors.NotAuthenticated, 401),
    (errors.AccessDenied, 403),
    (errors.Conflict, 409),
    (errors.CheckFailed, 409),
    (errors.VersionRefused, 409),
    (errors.Unavailable, 503),
)


def status_of(error: errors.MillpondError) -> int:
    """The HTTP status of an error; 500 for one that no request can cause."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def headers_of(error: errors.MillpondError) -> dict[str, str]:
    """Headers that belong with an error's status."""
    if isinstance(error, errors.NotAuthenticated):
        return {"www-authenticate": 'Bearer realm="millpond"'}
    return {"retry-after": "2"} if isinstance(error, errors.Unavailable) else {}
