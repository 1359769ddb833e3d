"""An answer as the tensors that a request asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from millpond.serving.ports import Answer, Explanation, InferRequest
from millpond.serving.protocol.signature import (
    AS_OF,
    CONTRIBUTIONS,
    CONTRIBUTIONS_BASE,
    PREDICTION_ID,
    OutputSpec,
    signature_of,
)
from millpond.serving.protocol.tensors import NO_PARAMETERS, OutTensor

if TYPE_CHECKING:
    from millpond.serving.rows import Column

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; the offset is written as Z


def instant_text(microseconds: int) -> str:
    """An instant, microseconds since 1970 UTC, as ISO 8601: "2013-12-01T08:00:00Z", as `format_instant` has it."""
    return (_EPOCH + timedelta(microseconds=int(microseconds))).isoformat() + "Z"


def instant_texts(instants: Sequence[int]) -> list[str]:
    """Many instants as text; equal ones are written once."""
    listed = instants.tolist() if isinstance(instants, np.ndarray) else instants
    if listed.count(listed[0]) == len(listed):
        return [instant_text(listed[0])] * len(listed)
    texts = {instant: instant_text(instant) for instant in set(listed)}
    return [texts[instant] for instant in listed]


def output_tensors_of(request: InferRequest, answer: Answer) -> list[OutTensor]:
    """The tensors that answer a request, in the order asked for: one element a row, a row for vectors.

    Contributions are float64 of shape [rows, inputs] in the order of `ServedModel.inputs`; beside them stands the base
    of each row. Their parameter `unit` says in which space they add up. Both are left out where the answer has no
    explanation.
    """
    specs = signature_of(answer.served).specs(answer.explanation is not None)
    return [_tensor(specs[wanted.name], answer, wanted.binary) for wanted in request.outputs if wanted.name in specs]


def response_parameters(request: InferRequest, answer: Answer) -> dict[str, str]:
    """Parameters of the response: `as_of` where the request set it, `features_synced_at` where known, `variant`."""
    parameters = {"variant": answer.variant}
    if request.as_of is not None:
        parameters["as_of"] = instant_text(request.as_of)
    if answer.synced_at is not None:
        parameters["features_synced_at"] = instant_text(answer.synced_at)
    return parameters


def _tensor(spec: OutputSpec, answer: Answer, binary: bool) -> OutTensor:
    count = len(answer.ids)
    shape = (count, spec.width) if spec.width else (count,)
    parameters: Mapping[str, Any] = NO_PARAMETERS
    column: Column
    if spec.source:
        column = answer.outputs[spec.source]
    elif spec.name == PREDICTION_ID:
        column = list(answer.ids)
    elif spec.name == AS_OF:
        column = instant_texts(answer.as_of)
    elif spec.name in (CONTRIBUTIONS, CONTRIBUTIONS_BASE) and answer.explanation is not None:
        explanation: Explanation = answer.explanation
        column = explanation.contributions if spec.width else [explanation.base] * count
        parameters = {"unit": explanation.unit}
    else:
        column = list(answer.answers or ())
    return OutTensor(spec.name, spec.datatype, shape, column, binary, parameters)
