"""Whether the optional part for gRPC is installed."""

from __future__ import annotations

from importlib.util import find_spec

from millpond.core.errors import MissingExtra


def available() -> bool:
    """Whether a gRPC port can be opened in this installation."""
    try:
        return find_spec("hpack") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:
        return False


def require() -> None:
    """Pass where a gRPC port can be opened.

    Raises:
        MissingExtra: It cannot.
    """
    if not available():
        raise MissingExtra("gRPC needs packages that are not installed", hint="pip install 'millpond[grpc]'")
