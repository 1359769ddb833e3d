"""What every face of the server must agree on: what a token looks like on the wire, and which routes need none."""

from __future__ import annotations

import base64
import binascii

#: Routes that answer without an identity: they tell nothing of the project. Everything else asks for one.
OPEN_ROUTES = frozenset({"/healthz", "/v2/health/live", "/v2/health/ready", "/login"})

#: The header in which a trusted front names the caller; percent-encoded UTF-8.
USER_HEADER = "x-millpond-user"


def presented_token(authorization: str) -> str | None:
    """The token in an Authorization header; None where there is none, or it is of another scheme."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return decoded.partition(":")[2]
    return None
