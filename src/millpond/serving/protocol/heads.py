"""What the short ways through requests share: the heads that they remember, and what heads may hold."""

from __future__ import annotations

import struct
from typing import Any, TypeVar

from millpond.core.errors import RequestError
from millpond.serving.ports import InferRequest, OutputWanted
from millpond.serving.protocol.parameters import read_parameters
from millpond.serving.protocol.signature import Signature

#: What is raised where something is not as it mostly is.
DOUBTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, struct.error, RequestError)

#: Heads that are remembered for a version, and their longest.
_HEADS = 256
HEAD_BYTES = 16_384

Head = TypeVar("Head")
Known = TypeVar("Known")


def remember(known: dict[Head, Known], head: Head, plan: Known) -> None:
    """Keep how requests with a head are read, as one of few."""
    if len(known) >= _HEADS:
        known.clear()
    known[head] = plan


def outputs_of(document: dict[str, Any], signature: Signature) -> tuple[OutputWanted, ...]:
    """The outputs that a document asks for. Raises one of `DOUBTS` where they are in doubt."""
    wanted = document.get("outputs")
    if wanted is None:
        return signature.plain
    names = [each["name"] for each in wanted]
    if type(wanted) is not list or len(set(names)) != len(names) or not signature.plain_names.issuperset(names):
        raise ValueError
    if any(len(each) > 1 for each in wanted):
        raise ValueError
    return tuple(OutputWanted(name) for name in names) or signature.plain


def with_parameters(request: InferRequest, parameters: Any, signature: Signature) -> InferRequest | None:
    """A request with its parameters; None where they ask for more than a plain answer.

    Raises:
        RequestError: They are not right.
    """
    if type(parameters) is not dict or "binary_data_output" in parameters:
        return None
    as_of, explain, routing_key = read_parameters(parameters, signature.place)
    return None if explain else request._replace(as_of=as_of, routing_key=routing_key)
