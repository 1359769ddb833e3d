"""Errors as the protocol's error bodies."""

from __future__ import annotations

import json

from millpond.core.errors import MillpondError


def error_sentence(error: Exception, *, id: str | None = None) -> str:
    """An error in one line: what, where, and what to do. Of an error that is not ours nothing is told but its id."""
    if isinstance(error, MillpondError):
        place = f" ({error.where})" if error.where else ""
        text = f"{error.what}{place}" + (f"; {error.hint}" if error.hint else "")
    else:
        text = "an internal error; look for the id in the log of the server"
    return f"{text} [{id}]" if id else text


def error_body(error: Exception, *, id: str | None = None) -> bytes:
    """The JSON body that tells an error: {"error", "type", "what", "where", "hint"}, and "id".

    Args:
        error: An error of our own says what it says; of any other only `id` is told.
        id: Under which the log has the rest.
    """
    body = {"error": error_sentence(error, id=id)}
    if isinstance(error, MillpondError):
        body |= {"type": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
    else:
        body |= {
            "type": "InternalError",
            "what": "an internal error",
            "where": "",
            "hint": "look for the id in the log of the server",
        }
    return json.dumps(body | ({"id": id} if id else {})).encode()
